"""The demo: the way from a checkpoint to a fast detector, on pictures of blood cells."""
