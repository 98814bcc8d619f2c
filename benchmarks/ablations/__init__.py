"""The focal loss's ablations at a small scale."""
