"""WebDataset: samples in tar archives (shards), with one file that says what they hold."""
