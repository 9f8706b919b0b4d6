"""Losses of plugins that return something that cannot be minimised are named."""

from __future__ import annotations

import pytest

PLUGIN = """
import ipucnn
from ipucnn.plugin import Loss, PerImageLoss

class Whole(Loss):
    def __call__(self, logits, labels, mixing=None, micro_batch=0):
        import torch
        return {whole}

class Each(PerImageLoss):
    def per_image(self, logits, labels):
        import torch
        return torch.nn.functional.cross_entropy(logits, labels)

class Missing(PerImageLoss):
    def per_image(self, logits, labels):
        return None

@ipucnn.hookimpl
def ipucnn_losses():
    return [ipucnn.LossSpec(name="odd", summary="s", target={target})]
"""


@pytest.mark.parametrize(("target", "whole", "message"), [
    ("lambda: None", "",
     "the target of loss 'odd' of odd returned None, expected an object of type 'Loss'"),
    ("lambda: Whole", "", "returned the class 'Whole', expected an object of type 'Loss'"),
    ("Whole", "1.0", "loss 'odd' returned an object of type 'float', expected the mean"),
    ("Whole", "torch.nn.functional.cross_entropy(logits, labels, reduction='none')",
     "loss 'odd' returned a tensor of shape [4], expected the mean"),
    ("Whole", "torch.nn.functional.cross_entropy(logits, labels).detach()",
     "loss 'odd' returned a value without a gradient"),
    ("Each", "", "'per_image' of loss 'odd' returned a tensor of torch.float32 (), expected a"),
    ("Missing", "", "'per_image' of loss 'odd' returned None, expected a tensor with a number"),
])
def test_a_loss_that_cannot_be_minimised_is_named(cli, tmp_path, target, whole, message):
    path = tmp_path / "odd.py"
    path.write_text(PLUGIN.format(target=target, whole=whole or "None"))
    done = cli("train", "--plugin", path, "--loss", "odd", "--model", "resnet8-cifar", "--data",
               "shapes", "--input-size", "32", "--batch-size", "4", "--iterations", "1",
               "--epoch", "1", "--precision", "full", "--backend", "torch", "--no-validation",
               "--progress", "off", "--checkpoint-path", tmp_path / "model")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("total", [None, 3.0, (1.0,)])
def test_the_total_of_a_loss_is_a_pair_of_numbers(total):
    from ipucnn.core.errors import PluginError
    from ipucnn.core.execution.losses import Loss, total_of

    class Odd(Loss):
        name = "odd"

        def __call__(self, logits, labels, mixing=None, micro_batch=0):
            return logits.mean()

        def total(self, logits, labels):
            return total

    with pytest.raises(PluginError, match="'total' of loss 'odd' returned"):
        total_of(Odd(), None, None)
