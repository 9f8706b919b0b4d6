"""Benchmarks image preparation on the host and compares it with a model's throughput."""
