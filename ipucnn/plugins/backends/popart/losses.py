"""Checks which losses this backend can build from PopART's operators."""

from __future__ import annotations

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.losses import CrossEntropyForm, Loss, unsupported


def loss_form(loss: Loss) -> CrossEntropyForm:
    """Return the description of a loss, after checking that this backend supports it.

    Raises:
        UsageError: PopART's operators cannot compute it here.
    """
    form = loss.device_form()
    if not isinstance(form, CrossEntropyForm):
        raise unsupported("popart", loss, "its losses: cross-entropy; '--backend poptorch' has "
                          "every loss that can be traced")
    if form.class_weights:
        raise UsageError(f"backend 'popart' has no class weights of loss {loss.name!r}",
                         "leave '--class-weights' out, or use '--backend poptorch'")
    return form
