import functools
import re
import subprocess
import sys
from importlib import metadata

import pytest
import torch
import torchvision

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.surgery import (
    count,
    full_precision_norms,
    normalise_on_device,
    pad_input_channels,
    replace_norms,
    zero_init_residual,
)

TORCHVISION = {
    "resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50",
    "resnet101": "resnet101", "resnet152": "resnet152", "resnext50": "resnext50_32x4d",
    "resnext101": "resnext101_32x8d", "mobilenet": "mobilenet_v2",
    "mobilenet-v3-small": "mobilenet_v3_small", "mobilenet-v3-large": "mobilenet_v3_large",
}
SIZES = (224, 240, 260, 300, 380, 456, 528, 600)
EFFICIENTNETS = {f"efficientnet-b{i}": size for i, size in enumerate(SIZES)}
NAMES = [*TORCHVISION, "resnext101_32x4d", *EFFICIENTNETS]
CIFAR = [*(f"resnet{layers}-cifar" for layers in (8, 14, 20, 32, 44, 56, 110)),
         *(f"{name}-cifar" for name in (
             "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50"))]
GROUPS = 8  # divides every channel count of every model


def record(name):
    return registry().get_typed(ModelSpec, name)


def build(name, num_classes=1000, **options):
    """Our model with these options of its own."""
    spec = record(name)
    own = registry().options_class(spec)
    assert own or not options
    return registry().make(spec, num_classes=num_classes, options=own and own(**options))


def outline(name, **options):
    """Our model without memory for its weights."""
    with torch.device("meta"):
        return build(name, **options)


def source(name, **options):
    """The source library's own model."""
    with torch.device("meta"):
        if name in TORCHVISION:
            return getattr(torchvision.models, TORCHVISION[name])(weights=None, **options)
        if name in EFFICIENTNETS:
            from efficientnet_pytorch import EfficientNet

            return EfficientNet.from_name(name)
    import pretrainedmodels

    return pretrainedmodels.resnext101_32x4d(pretrained=None)


def layout(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def norm_layer(name, **options):
    """Return a function that makes a norm layer with these options for a site."""
    spec = registry().get_typed(NormLayerSpec, name)
    own = registry().options_class(spec)
    return functools.partial(registry().make, spec, options=own and own(**options))


def test_listing_models_and_norm_layers_imports_no_torch():
    code = ("import sys; from ipucnn.core.registry.registry import registry; "
            "r = registry(); print(len(r.rows('model') + r.rows('norm-layer'))); "
            "print([m for m in ('torch', 'torchvision', 'efficientnet_pytorch', "
            "'pretrainedmodels') if m in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True).stdout.split("\n")
    assert int(answer[0]) >= len(NAMES) + 3
    assert answer[1] == "[]"


def test_these_are_the_built_in_models():
    assert sorted(registry().names("model")) == sorted([*NAMES, *CIFAR])


@pytest.mark.parametrize("name", NAMES)
def test_state_dictionaries_are_the_source_librarys_before_and_after_every_surgery(name):
    theirs = layout(source(name))
    model = outline(name)
    assert layout(model) == theirs
    assert list(layout(model)) == list(theirs)
    zeroed = zero_init_residual(model)
    assert bool(zeroed) == record(name).zero_init_residual
    replace_norms(model, norm_layer("batch", norm_eps=0.5, batchnorm_momentum=0.25))
    pad_input_channels(model)
    model.half()
    assert full_precision_norms(model, torch.float16)
    normalise_on_device(model)
    assert layout(model) == theirs

    running = ("running_mean", "running_var", "num_batches_tracked")
    norms = {key.rpartition(".")[0] for key in theirs if key.endswith("running_mean")}
    model = outline(name)
    replaced = replace_norms(model, norm_layer("group", groupnorm_group_num=GROUPS))
    assert {path.replace("/", ".") for path in replaced} == norms
    group = {key: shape for key, shape in theirs.items() if not key.endswith(running)}
    assert layout(model) == group
    if name in TORCHVISION:
        own = source(name, norm_layer=lambda channels: torch.nn.GroupNorm(GROUPS, channels))
        assert layout(model) == layout(own)
    model = outline(name)
    replace_norms(model, norm_layer("none"))
    assert layout(model) == {key: shape for key, shape in theirs.items()
                             if key.rpartition(".")[0] not in norms}
    assert not zero_init_residual(model)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_takes_any_number_of_classes(name):
    seven, thousand = layout(outline(name, num_classes=7)), layout(outline(name))
    assert list(seven) == list(thousand)
    different = [key for key in seven if seven[key] != thousand[key]]
    assert different == list(seven)[-2:]
    assert all(seven[key] == (7, *thousand[key][1:]) for key in different)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_parameters_and_multiply_adds_are_those_of_torchvisions_tables(name):
    meta = torchvision.models.get_model_weights(TORCHVISION[name]).IMAGENET1K_V1.meta
    parameters, multiply_adds = count(outline(name), 224)
    assert parameters == meta["num_params"]
    assert multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=0.00051)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_published_weights_are_what_torchvision_states(name):
    theirs = {w.name[-2:].lower(): w for w in
              torchvision.models.get_model_weights(TORCHVISION[name])}
    ours = record(name).weights
    assert [w.tag for w in ours] == sorted(theirs)
    for weights in ours:
        expected = theirs[weights.tag]
        metrics = expected.meta["_metrics"]["ImageNet-1K"]
        assert weights.url == expected.url
        assert (weights.top1, weights.top5) == (metrics["acc@1"], metrics["acc@5"])
        assert f"-{weights.sha256}." in weights.url
        assert len(weights.sha256) == 8


def description(name):
    """The metadata of an installed distribution; an egg has it in another file."""
    installed = metadata.distribution(name)
    return installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""


@pytest.mark.parametrize("name", sorted(EFFICIENTNETS))
def test_published_efficientnets_are_what_the_library_states(name):
    from efficientnet_pytorch import EfficientNet
    from efficientnet_pytorch.utils import url_map

    spec = record(name)
    readme = description("efficientnet_pytorch")
    stated = re.search(rf"`{name}`\s*\|[^|]*\|\s*([\d.]+)", readme)
    assert spec.weights[0].url == url_map[name]
    assert f"-{spec.weights[0].sha256}." in url_map[name]
    assert spec.weights[0].top1 == float(stated.group(1))
    assert spec.input_size == EFFICIENTNETS[name] == EfficientNet.get_image_size(name)


def test_the_published_resnext101_32x4d_is_what_the_library_states():
    from pretrainedmodels import pretrained_settings

    weights = record("resnext101_32x4d").weights[0]
    readme = description("pretrainedmodels")
    assert weights.url == pretrained_settings["resnext101_32x4d"]["imagenet"]["url"]
    assert f"Our porting | {weights.top1} | {weights.top5}" in readme
    assert f"-{weights.sha256}." in weights.url


@pytest.mark.parametrize(("spelling", "name"), [
    ("efficientnetb0", "efficientnet-b0"), ("mobilenetv2", "mobilenet"),
    ("MobileNet_V2", "mobilenet"), ("resnext50_32x4d", "resnext50"),
    ("resnext101_32x8d", "resnext101"), ("resnext101-32x4d", "resnext101_32x4d"),
])
def test_other_spellings(spelling, name):
    assert record(spelling).name == name


@pytest.mark.parametrize("name", ["resnet18", "mobilenet-v3-small", "efficientnet-b0"])
def test_random_weights_follow_torchs_generator(name):
    def drawn(seed):
        torch.manual_seed(seed)
        return build(name, num_classes=3).state_dict()

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_importing_the_source_library_draws_nothing_from_the_seed(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("pretrainedmodels")]:
        monkeypatch.delitem(sys.modules, name)
    build = registry().resolve(record("resnext101_32x4d"))
    weights = []
    for _ in range(2):  # the first one imports it
        torch.manual_seed(1)
        weights.append(build(num_classes=5).features[0].weight)
    assert torch.equal(*weights)


def test_two_resnext101_32x4d_share_nothing():
    build = registry().resolve(record("resnext101_32x4d"))
    torch.manual_seed(1)
    one = build(num_classes=5)
    torch.manual_seed(1)
    two = build(num_classes=5)
    assert one.last_linear.out_features == 5
    weight = one.features[0].weight
    assert torch.equal(weight, two.features[0].weight)
    with torch.no_grad():
        weight.zero_()
    assert two.features[0].weight.abs().sum() > 0
    assert source("resnext101_32x4d").features[0].weight.abs().sum() > 0


def test_expand_ratio_applies_to_all_groups_of_blocks_but_the_first():
    model = outline("efficientnet-b0", efficientnet_expand_ratio=4)
    for index, block in enumerate(model._blocks):
        if index == 0:
            assert not hasattr(block, "_expand_conv")
        else:
            conv = block._expand_conv
            assert conv.out_channels == 4 * conv.in_channels
    assert count(model, 224)[0] < count(outline("efficientnet-b0"), 224)[0]


def test_the_papers_values_change_nothing():
    plain = layout(outline("efficientnet-b0"))
    assert layout(outline("efficientnet-b0", efficientnet_expand_ratio=6,
                          efficientnet_group_dim=1)) == plain
    assert layout(outline("efficientnet-b0", efficientnet_expand_ratio=None,
                          efficientnet_group_dim=None)) == plain


def test_group_dim_makes_groups_of_so_many_channels():
    torch.manual_seed(0)
    model = build("efficientnet-b4", num_classes=4, efficientnet_group_dim=16,
                  efficientnet_expand_ratio=4)
    groups = {block._depthwise_conv.in_channels: block._depthwise_conv.groups
              for block in model._blocks}
    assert groups[24] == 1  # too few channels for two groups of 16
    assert groups[48] == 3
    assert all(tuple(block._depthwise_conv.weight.shape[:2]) == (
        block._depthwise_conv.out_channels,
        block._depthwise_conv.in_channels // block._depthwise_conv.groups)
        for block in model._blocks)
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_a_group_dim_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match=r"5 does not suit layer '_blocks/0/_depthwise_conv', "
                                         "whose 32 channels") as caught:
        outline("efficientnet-b0", efficientnet_group_dim=5)
    assert caught.value.hint.endswith("1, 2, 4, 8, 16")


def test_efficientnet_is_built_for_its_own_image_size():
    model = outline("efficientnet-b1")
    padding = [m.padding for m in model.modules() if isinstance(m, torch.nn.ZeroPad2d)]
    from efficientnet_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-b1")
    assert padding == [m.padding for m in theirs.modules() if isinstance(m, torch.nn.ZeroPad2d)]
    assert not any("MemoryEfficient" in type(m).__name__ for m in model.modules())
