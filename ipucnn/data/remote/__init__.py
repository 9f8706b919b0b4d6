"""Remote files: downloads, transfers and a bounded cache of shards.

Used for datasets and weights. Import `remote.download` and `remote.shard_cache`.
"""
