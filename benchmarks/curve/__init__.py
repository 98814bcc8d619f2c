"""`retinart curve`: AP against milliseconds, over scales and precisions."""
