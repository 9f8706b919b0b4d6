"""Checkpoints: their format (`checkpoint`), which are kept, and what is read from them."""
