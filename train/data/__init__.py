"""Training data: batches, the check of a dataset, and generated scenes."""
