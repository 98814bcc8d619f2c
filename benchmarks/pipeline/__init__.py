"""A whole detection job against inference alone."""
