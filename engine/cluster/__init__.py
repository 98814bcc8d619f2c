"""Detection on many machines: Ray's actors hold detectors, and get shards of pictures."""
