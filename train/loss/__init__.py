"""The training loss: which anchor learns which box, and what it costs."""
