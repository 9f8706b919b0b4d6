"""Benchmarks: networks beside other programs (`bench`), and preparing images (`data bench`)."""
