"""Optimizers against their papers' formulas, written out in double precision."""

from __future__ import annotations

import numpy
import pytest
import torch

from ipucnn.core.registry.registry import Registry

LR, DECAY, STEPS = 0.05, 0.1, 6
RMSPROP = {"rmsprop_decay": 0.9, "momentum": 0.5, "optimizer_eps": 1e-3}


def gradients(step):
    return numpy.cos(numpy.arange(6).reshape(2, 3) + step)


def start():
    return numpy.linspace(-1, 1, 6).reshape(2, 3)


def trained(name, **hyper):
    registry = Registry()
    w = torch.tensor(start(), dtype=torch.float64, requires_grad=True)
    spec = registry.get("optimizer", name)
    optimizer = registry.make(spec, [{"params": [w], "weight_decay": DECAY}], lr=LR,
                              options=registry.options_class(spec)(**hyper))
    for step in range(STEPS):
        w.grad = torch.tensor(gradients(step), dtype=torch.float64)
        optimizer.step()
    return w.detach().numpy()


def sgd(momentum):
    w, v = start(), 0
    for step in range(STEPS):
        v = momentum * v + gradients(step) + DECAY * w
        w = w - LR * v
    return w


def adam(decoupled, b1=0.9, b2=0.999, eps=1e-8):
    w, m, v = start(), 0, 0
    for step in range(STEPS):
        g = gradients(step) + (0 if decoupled else DECAY * w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        update = m / (1 - b1 ** (step + 1)) / (numpy.sqrt(v / (1 - b2 ** (step + 1))) + eps)
        w = w - LR * update - (LR * DECAY * w if decoupled else 0)
    return w


def rmsprop(tf, alpha=0.9, momentum=0.5, eps=1e-3):
    w, s, m = start(), 1.0 if tf else 0.0, 0.0
    for step in range(STEPS):
        g = gradients(step) + DECAY * w
        s = alpha * s + (1 - alpha) * g**2
        if tf:
            m = momentum * m + LR * g / numpy.sqrt(s + eps)
            w = w - m
        else:
            m = momentum * m + g / (numpy.sqrt(s) + eps)
            w = w - LR * m
    return w


def lamb(b1=0.9, b2=0.999, eps=1e-6):
    w, m, v = start(), 0, 0
    for step in range(STEPS):
        g = gradients(step)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        update = m / (1 - b1 ** (step + 1)) / (numpy.sqrt(v / (1 - b2 ** (step + 1))) + eps)
        update = update + DECAY * w
        w = w - LR * numpy.linalg.norm(w) / numpy.linalg.norm(update) * update
    return w


@pytest.mark.parametrize(("got", "expected"), [
    (lambda: trained("sgd", momentum=0.9), lambda: sgd(0.9)),
    (lambda: trained("sgd_combined", momentum=0.9), lambda: sgd(0.9)),
    (lambda: trained("adam"), lambda: adam(False)),
    (lambda: trained("adamw"), lambda: adam(True)),
    (lambda: trained("rmsprop", **RMSPROP), lambda: rmsprop(False)),
    (lambda: trained("rmsprop_tf", **RMSPROP), lambda: rmsprop(True)),
    (lambda: trained("lamb", optimizer_eps=1e-6), lamb),
], ids=["sgd", "sgd_combined", "adam", "adamw", "rmsprop", "rmsprop_tf", "lamb"])
def test_the_formula(got, expected):
    numpy.testing.assert_allclose(got(), expected(), rtol=0, atol=1e-10)
