"""WebDataset: samples in tar archives (shards), with a metadata file."""
