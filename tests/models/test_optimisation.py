"""Parameter groups and optimizers of a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipucnn.models.optimisation import parameter_groups, with_own_settings


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


def test_scalars_and_vectors_have_no_weight_decay():
    model = nn.Linear(3, 2)
    model.gain = nn.Parameter(torch.tensor(1.0))
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [model.weight]
    assert {id(one) for one in others["params"]} == {id(model.bias), id(model.gain)}
