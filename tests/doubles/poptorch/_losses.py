"""Which value of a model is trained: losses are recognised by operator, or marked as such."""

import torch
from torch.overrides import TorchFunctionMode

from poptorch._errors import failure

FOUND = None
"""Losses since the pass began, in order; None outside a program."""

_RECOGNISED = tuple(getattr(torch.nn.functional, name) for name in (
    "nll_loss", "cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div",
    "binary_cross_entropy", "binary_cross_entropy_with_logits"))


def identity_loss(x, reduction):
    assert reduction in ("sum", "mean", "none"), "Unsupported reduction type!"
    loss = x.view_as(x) if reduction == "none" else getattr(x, reduction)()
    if FOUND is not None:
        FOUND.append(loss)
    return loss


class Recognition(TorchFunctionMode):
    """Notes the results of loss functions, in a program that is trained."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.prelu:  # PopART has no gradient for it
            result = result.detach()
        if FOUND is not None and func in _RECOGNISED:
            if kwargs.get("weight") is not None and func in _RECOGNISED[:2]:
                raise failure("class weights are not supported by PopART's negative log likelihood")
            if kwargs.get("label_smoothing"):  # the likelihood within is what is recognised
                inner = func(*args, **{**kwargs, "label_smoothing": 0.0})
                FOUND.append(inner)
                return result + 0 * inner  # it is part of the smoothed one
            FOUND.append(result)
        return result


def marked(model, arguments):
    """Run a forward pass; return its outputs and the loss that is trained."""
    global FOUND
    FOUND = []
    try:
        with Recognition():
            outputs = model(*arguments)
        found = FOUND
    finally:
        FOUND = None
    if not found:
        raise failure("Couldn't find a loss in graph!")
    final = [loss for loss in found
             if not any(_feeds(loss, other) for other in found if other is not loss)]
    if len(final) > 1:
        raise failure("Multiple independent losses found in graph. Graph must have one final loss.")
    return outputs, final[0]


def _feeds(loss, other):
    """Return whether `other` is computed from `loss`."""
    wanted, queue, seen = loss.grad_fn, [other.grad_fn], set()
    while wanted is not None and queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        queue += [before for before, _ in node.next_functions if before is not None]
        if wanted in queue:
            return True
    return False
