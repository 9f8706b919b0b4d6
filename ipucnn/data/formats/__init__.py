"""Datasets on disk: which of them reads a folder; making, converting, checking, fetching them."""
