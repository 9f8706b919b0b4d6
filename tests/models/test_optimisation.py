"""Parameter groups and optimizers of a model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.models.optimisation import (
    CHANGED,
    load_optimizer,
    make_optimizer,
    optimizer_state,
    parameter_groups,
    set_rate,
    with_own_settings,
)


def made(place="cpu", **settings):
    weight = nn.Parameter(torch.zeros(2, device=place))
    return torch.optim.AdamW([{"params": [weight], "weight_decay": 0.1}], **settings)


def test_a_saved_state_is_loaded_with_the_settings_of_the_optimizer():
    saved, own = made(lr=0.5, betas=(0.8, 0.9)).state_dict(), made(lr=0.1, eps=1e-3)
    found = with_own_settings(saved, own, kept=("lr",))
    group, = found["param_groups"]
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.9, 0.999), 1e-3)
    assert group["params"] == saved["param_groups"][0]["params"]


def test_other_groups_are_refused_by_the_optimizer():
    saved = made().state_dict()
    saved["param_groups"] *= 2
    with pytest.raises(ValueError, match="parameter group"):
        made().load_state_dict(with_own_settings(saved, made()))


@pytest.mark.skipif(torch.__version__ < "2.1", reason="torch 2.0 leaves step counts as they are")
def test_step_counts_are_where_the_optimizer_needs_them():
    """Those of a CPU have been on the host, and a fused optimizer of a GPU reads them there."""
    before = made()
    before.param_groups[0]["params"][0].grad = torch.ones(2)
    before.step()
    own = made("meta", capturable=True)  # which places them as fused ones do
    own.load_state_dict(with_own_settings(before.state_dict(), own))
    state, = own.state.values()
    assert state["step"].device.type == "meta"


class Counting(torch.optim.Optimizer):
    """Keeps its progress in its parameter groups, as Prodigy and schedule-free optimizers do."""

    def __init__(self, groups, lr, beta=0.9, place="cpu"):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "beta": beta, "count": 0,
                                  "total": torch.zeros(2, device=place), "seen": [], "idle": None})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            group["total"] += 1
            group["seen"].append(group["count"])
            for weight in group["params"]:
                weight.sub_(group["lr"] * group["count"] * weight.grad)


def counting(**settings):
    model = nn.Linear(2, 2, bias=False)
    optimizer = make_optimizer(model, OptimizerChoice(
        "counting", 0.1, 0.01, None, lambda groups, lr: Counting(groups, lr, **settings)))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    return optimizer


def test_what_an_optimizer_changes_in_its_groups_is_restored():
    before = counting()
    assert CHANGED not in optimizer_state(before)
    before.step()
    before.step()
    set_rate(before, 0.5)
    state = copy.deepcopy(optimizer_state(before))
    assert state[CHANGED] == ["count", "seen", "total"]
    after = counting(beta=0.8)  # changed when it was restored
    load_optimizer(after, state)
    for group in after.param_groups:
        assert (group["count"], group["total"].tolist(), group["seen"]) == (2, [2, 2], [1, 2])
        assert (group["lr"], group["beta"]) == (0.1, 0.8)
    after.step()
    assert {group["count"] for group in after.param_groups} == {3}
    assert optimizer_state(after)[CHANGED] == state[CHANGED]


def test_settings_that_are_tensors_stay_where_the_optimizer_needs_them():
    before = counting()
    before.step()
    after = counting(place="meta")
    load_optimizer(after, optimizer_state(before))
    assert {group["total"].device.type for group in after.param_groups} == {"meta"}


def test_states_without_the_names_of_changed_settings_are_loaded():
    before, after = counting(), counting()
    before.step()
    load_optimizer(after, before.state_dict())  # of an earlier version
    assert {group["count"] for group in after.param_groups} == {0}


def test_the_state_of_a_built_in_optimizer_is_its_state_dictionary():
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, OptimizerChoice(
        "adamw", 0.1, 0.01, None, lambda groups, lr: torch.optim.AdamW(groups, lr)))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert optimizer_state(optimizer).keys() == optimizer.state_dict().keys()


def test_scalars_and_vectors_have_no_weight_decay():
    model = nn.Linear(3, 2)
    model.gain = nn.Parameter(torch.tensor(1.0))
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [model.weight]
    assert {id(one) for one in others["params"]} == {id(model.bias), id(model.gain)}
