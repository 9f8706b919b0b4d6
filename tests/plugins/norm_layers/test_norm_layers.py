import functools

import pytest
import torch
from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import NormLayerSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.build import create_model
from ipucnn.models.norms import NormSite
from ipucnn.models.surgery import replace_norms


def layer(name, **values):
    """Return what makes the layer with these options for a site."""
    spec = registry().get_typed(NormLayerSpec, name)
    return functools.partial(registry().make, spec,
                             options=registry().options_class(spec)(**values))


def norms(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(("model", "eps", "momentum"), [
    ("resnet18", 1e-5, 0.1), ("mobilenet-v3-small", 1e-3, 0.01), ("efficientnet-b0", 1e-3, 0.01)])
def test_models_keep_their_own_epsilon_and_momentum(model, eps, momentum):
    built = create_model(model, weights="random", normlayer="batch").module
    found = {(n.eps, round(n.momentum, 6)) for n in norms(built, nn.BatchNorm2d)}
    assert found == {(eps, momentum)}


@pytest.mark.parametrize("model", ["resnet18", "mobilenet", "efficientnet-b0"])
def test_epsilon_and_momentum_can_be_set(model):
    built = create_model(model, weights="random",
                         norm_eps=0.25, batchnorm_momentum=0.5).module
    assert {(n.eps, n.momentum) for n in norms(built, nn.BatchNorm2d)} == {(0.25, 0.5)}


def test_batch_norm_keeps_the_trained_state():
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(8, 4, 3, 3))
    nn.init.uniform_(norm.weight)
    model = nn.Sequential(norm)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    replace_norms(model, layer("batch", norm_eps=0.5))
    assert model[0].eps == 0.5
    assert before["0.num_batches_tracked"] == 1
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_batch_norm_without_statistics_or_weights_stays_so():
    model = nn.Sequential(nn.BatchNorm2d(4, affine=False, track_running_stats=False, momentum=None))
    replace_norms(model, layer("batch", norm_eps=0.5))
    assert model.state_dict() == {}
    assert model[0].momentum is None


def test_group_norm_takes_groups_and_the_models_own_epsilon():
    built = create_model("efficientnet-b0", weights="random", normlayer="group",
                         groupnorm_group_num=4).module
    assert norms(built, nn.BatchNorm2d) == []
    assert {(n.num_groups, n.eps) for n in norms(built, nn.GroupNorm)} == {(4, 1e-3)}
    built = create_model("resnet18", weights="random", normlayer="group",
                         norm_eps=0.125).module
    assert {(n.num_groups, n.eps) for n in norms(built, nn.GroupNorm)} == {(32, 0.125)}


def test_group_norm_computes_group_norm():
    site = NormSite("norm", 6, 1e-5, 0.1, True)
    norm = layer("group", groupnorm_group_num=2)(site)
    images = torch.randn(2, 6, 5, 5)
    groups = images.reshape(2, 2, -1)
    expected = (groups - groups.mean(2, keepdim=True)) / (
        groups.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(norm(images), expected.reshape(images.shape), atol=1e-5)


def test_groups_that_do_not_divide_are_answered_with_those_that_do():
    with pytest.raises(UsageError) as caught:
        create_model("mobilenet", weights="random", normlayer="group")
    assert caught.value.message == ("32 groups do not divide the 16 channels of layer "
                                    "'features/1/conv/2'")
    assert caught.value.hint.endswith("all layers of the model: 1, 2, 4, 8")


def test_none_removes_every_norm():
    built = create_model("resnet18", weights="random", normlayer="none").module
    assert norms(built, (nn.BatchNorm2d, nn.GroupNorm)) == []
    assert isinstance(built.layer1[0].bn1, nn.Identity)
    assert built.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 1000)


@pytest.mark.parametrize(("name", "options", "flag", "owners"), [
    ("group", {"batchnorm_momentum": 0.5}, "--batchnorm-momentum", "norm-layer batch"),
    ("batch", {"groupnorm_group_num": 4}, "--groupnorm-group-num", "norm-layer group"),
    ("batch", {"norm_num_groups": 4}, "--norm-num-groups", "norm-layer group"),
    ("none", {"norm_eps": 0.5}, "--norm-eps", "norm-layers batch, group"),
])
def test_an_option_without_meaning_for_the_layer_is_refused(name, options, flag, owners):
    with pytest.raises(UsageError) as caught:
        create_model("resnet18", weights="random", normlayer=name, **options)
    assert caught.value.message == f"'{flag}' is an option of {owners}; this run uses {name}"
    create_model("resnet8-cifar", weights="random", normlayer="none", norm_eps=None)


def test_which_layers_depend_on_the_batch():
    specs = {name: registry().get_typed(NormLayerSpec, name) for name in
             registry().names("norm-layer")}
    assert {name: spec.batch_dependent for name, spec in specs.items()} == {
        "batch": True, "group": False, "none": False}
