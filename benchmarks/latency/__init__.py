"""`retinart benchmark`: milliseconds an image, as tables and as a page."""
