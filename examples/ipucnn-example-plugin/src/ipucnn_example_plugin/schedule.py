"""The schedule: a pure function of the fractional epoch."""

from ipucnn.plugin import UsageError


def factor(epoch, epochs):
    """Return ``1 - |2 epoch / epochs - 1|``, and 0 after the last epoch.

    Args:
        epoch: fractional epoch, from 0.
        epochs: number of epochs of the training.
    """
    if not epochs > 0:
        raise UsageError(f"schedule 'triangular': {epochs!r} epochs are too few",
                         "set more than 0")
    return max(1.0 - abs(2.0 * epoch / epochs - 1.0), 0.0)
