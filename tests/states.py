"""Comparison of state dictionaries, for tests of sessions."""

from __future__ import annotations

import torch


def assert_close(found, expected, tolerance=1e-5, relative=0.0):
    """Require the same names in the same order, and values within tolerances."""
    assert list(found) == list(expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=relative, atol=tolerance,
                                   msg=lambda text, name=name: f"{name}: {text}")
