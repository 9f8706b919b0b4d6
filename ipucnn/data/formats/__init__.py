"""Datasets on disk: recognises, generates, converts, verifies and fetches them."""
