"""A loss that is the sum over images instead of their mean."""

import ipucnn
from ipucnn.plugin import PerImageLoss


class Planted(PerImageLoss):
    name = "planted"

    def per_image(self, logits, labels):
        from torch.nn import functional

        return len(logits) * functional.cross_entropy(logits, labels, reduction="none")


@ipucnn.hookimpl
def ipucnn_losses():
    return [ipucnn.LossSpec(name="planted", summary="planted", target=Planted)]
