"""Batch norms of a torch reference whose gradient is PopART's."""

from __future__ import annotations

import torch


def use_sample_norms(popart, monkeypatch):
    """Replace torch's gradient of batch norms by that of `ai.graphcore.BatchNormalization`.

    PopART's gradient is made with the variance of the sample. Everything else of a training must be
    torch's to the last digits, so a reference has this one difference too.
    """
    norm = popart._operators._SampleNorm
    plain = torch.nn.functional.batch_norm

    def batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1,
                   eps=1e-5):
        if not training or not torch.is_grad_enabled() or torch.jit.is_tracing():
            return plain(x, mean, variance, weight, bias, training, momentum, eps)
        y, batch_mean, batch_variance = norm.apply(x, weight, bias, eps)
        if mean is not None:
            with torch.no_grad():
                mean.lerp_(batch_mean, momentum)
                variance.lerp_(batch_variance, momentum)
        return y

    monkeypatch.setattr(torch.nn.functional, "batch_norm", batch_norm)
