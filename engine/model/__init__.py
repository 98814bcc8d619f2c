"""What a model file says of itself: its metadata, its variant, its resize rule."""
