"""A detection job: it reads sources, tracks, draws, writes files and sums up."""
