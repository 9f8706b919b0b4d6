"""Networks that cannot be exported, each in its own way: `--plugin tests/odd_models.py`."""

from functools import partial

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec


def build(kind, num_classes):
    """Return a small classifier with something odd in its middle."""
    import torch
    from torch import nn

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, stride=2)
            self.last = nn.Linear(8, num_classes)
            if kind == "huge":  # one number, seen as more of them than 2 GiB hold
                self.register_buffer("table", torch.zeros(1).expand(2**29 + 1))

        def forward(self, images):
            x = self.first(images)
            if kind == "looks" and float(x.mean()) != 0:
                x = x + (1 if float(images.abs().sum()) > 0 else 0)
            elif kind == "drifts":
                self.calls = getattr(self, "calls", 0) + 1
                x = x + self.calls
            elif kind == "erfinv":
                x = torch.erfinv(x.tanh() / 2)
            elif kind == "fails-when-traced" and torch.onnx.is_in_onnx_export():
                raise KeyError("no graph of me")
            elif kind == "fails":
                raise KeyError("no such thing")
            elif kind == "counts":
                x = x.reshape(2, 8, 7, 7)
            elif kind == "gathers":
                x = x.gather(1, x.argmax(1, keepdim=True))
            return self.last(x.mean((2, 3)).expand(-1, 8))

    return Odd()


@hookimpl
def ipucnn_models():
    """Return a record for each way."""
    return [ModelSpec(name=f"odd-{kind}", summary="cannot be exported", target=partial(build, kind),
                      input_size=16, num_classes=8)
            for kind in ("looks", "drifts", "erfinv", "gathers", "fails", "fails-when-traced",
                         "counts", "huge")]
