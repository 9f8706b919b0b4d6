import copy

import pytest
import torch
from torch import nn

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.models.build import create_model
from ipucnn.models.surgery import (
    convert,
    full_precision_norms,
    normalise,
    normalise_on_device,
    pad_input_channels,
    replace_norms,
    zero_init_residual,
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def tiny():
    """A net with a norm at the root, in a Sequential and nested deeper."""
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 8, 3))
    model.add_module("norm", nn.BatchNorm2d(8))
    model.add_module("block", nn.Sequential(
        nn.Conv2d(8, 12, 3), nn.Sequential(nn.BatchNorm2d(12), nn.ReLU())))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(12, 5))
    return model


def group(site, groups=2):
    return nn.GroupNorm(groups, site.channels, affine=site.affine)


def test_replacing_passes_the_factory_what_it_replaces():
    sites = []

    def factory(site):
        sites.append(site)
        return group(site, 4)

    model = tiny()
    convolutions = [model.conv, model.block[0]]
    assert replace_norms(model, factory) == ["norm", "block/1/0"]
    assert [(s.name, s.channels, s.eps, s.momentum, s.affine, s.common_channels)
            for s in sites] == [("norm", 8, 1e-5, 0.1, True, 4),
                                ("block/1/0", 12, 1e-5, 0.1, True, 4)]
    assert isinstance(model.norm, nn.GroupNorm)
    assert isinstance(model.block[1][0], nn.GroupNorm)
    assert [model.conv, model.block[0]] == convolutions


def test_replacing_keeps_weights_type_device_and_mode():
    model = tiny().double()
    nn.init.uniform_(model.norm.weight)
    model.norm.eval()
    model.norm.bias.requires_grad_(False)
    weight = model.norm.weight.clone()
    replace_norms(model, group)
    assert torch.equal(model.norm.weight, weight)
    assert model.norm.weight.dtype is torch.float64
    assert [p.requires_grad for p in model.norm.parameters()] == [True, False]
    assert (model.norm.training, model.block[1][0].training) == (False, True)
    model = tiny().to("meta")
    replace_norms(model, group)
    assert model.norm.weight.is_meta


class Activated(nn.BatchNorm2d):
    """A batch norm that applies an activation, as timm has them."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.PReLU()

    def forward(self, x):
        return self.act(super().forward(x))


def activated():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Activated(8), nn.Conv2d(8, 4, 1)).eval()
    nn.init.constant_(model[1].act.weight, -0.5)
    model[1].running_mean.uniform_(-1, 1)
    return model


def test_an_activation_within_a_batch_norm_stays():
    model, images = activated(), torch.randn(2, 3, 6, 6)
    state, expected = model.state_dict(), model(images)
    replace_norms(model, lambda site: nn.BatchNorm2d(site.channels, site.eps))
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    assert torch.equal(model(images), expected)
    assert torch.equal(copy.deepcopy(model)(images), expected)
    replace_norms(model, group)
    plain = nn.Sequential(model[0], nn.GroupNorm(2, 8), nn.PReLU(init=-0.5), model[2])
    assert torch.equal(model(images), plain(images))


def test_a_replacement_that_fails_leaves_the_model_alone():
    def factory(site):
        if site.channels == 12:
            raise UsageError("not this one")
        return group(site)

    model = tiny()
    with pytest.raises(UsageError, match="not this one"):
        replace_norms(model, factory)
    assert isinstance(model.norm, nn.BatchNorm2d)


def test_a_factory_must_give_a_module():
    with pytest.raises(PluginError, match="returned 3"):
        replace_norms(tiny(), lambda site: 3)


def test_residual_zero_init_takes_the_shortcut_where_there_is_one():
    model = create_model("resnet50", weights="random").module  # `create_model` has done it
    zero = [name for name, p in model.named_parameters() if p.dim() == 1 and not p.any()
            and name.endswith("weight")]
    expected = []
    for layer, blocks in (("layer1", 3), ("layer2", 4), ("layer3", 6), ("layer4", 3)):
        expected += [f"{layer}.0.downsample.1.weight"]
        expected += [f"{layer}.{block}.bn3.weight" for block in range(1, blocks)]
    assert zero == expected


def test_residual_zero_init_without_a_shortcut_convolution_takes_the_last_norm():
    model = create_model("resnet18", weights="random").module
    assert not model.layer1[0].bn2.weight.any()
    assert model.layer1[0].bn1.weight.all()
    assert model.layer2[0].bn2.weight.all()
    assert not model.layer2[0].downsample[1].weight.any()


def test_residual_zero_init_of_the_converted_resnext():
    model = create_model("resnext101_32x4d", weights="random", num_classes=2).module
    assert len(zero_init_residual(model)) == 3 + 4 + 23 + 3
    first, second = model.features[4][0][0], model.features[4][1][0]
    assert not first[1][1].weight.any()  # the shortcut of a group's first block
    assert first[0][2].weight.all()
    assert not second[0][2].weight.any()


def test_residual_zero_init_serves_group_norm_and_passes_over_none():
    model = create_model("resnet18", weights="random", normlayer="group").module
    assert not model.layer1[0].bn2.weight.any()
    assert zero_init_residual(create_model("resnet18", weights="random",
                                           normlayer="none").module) == []


def test_full_precision_norms_compute_in_single_precision():
    reference = tiny().eval()
    images = torch.randn(2, 3, 12, 12)
    model = copy.deepcopy(reference).bfloat16()
    keys = list(model.state_dict())
    seen = {}
    assert full_precision_norms(model, torch.bfloat16) == ["norm", "block/1/0"]
    model.norm.register_forward_pre_hook(lambda m, i: seen.update(inside=i[0].dtype))
    model.block.register_forward_pre_hook(lambda m, i: seen.update(after=i[0].dtype))
    output = copy.deepcopy(model)(images.bfloat16())
    assert seen == {"inside": torch.float32, "after": torch.bfloat16}
    assert output.dtype is torch.bfloat16
    assert model.norm.weight.dtype is model.norm.running_mean.dtype is torch.float32
    assert model.conv.weight.dtype is torch.bfloat16
    assert list(model.state_dict()) == keys
    assert torch.allclose(output.float(), reference(images), atol=0.05)


@pytest.mark.parametrize("norms", [True, False])
def test_conversion_keeps_running_statistics(norms):
    model = tiny().eval()
    model.norm.running_var.fill_(1e5)
    before = copy.deepcopy(model)
    convert(model, torch.float16, norms=norms)
    assert model.conv.weight.dtype is torch.float16
    assert model.norm.weight.dtype is (torch.float16 if norms else torch.float32)
    assert torch.equal(model.norm.running_var, before.norm.running_var)
    assert torch.equal(model.conv.weight, before.conv.weight.half())
    assert list(model.state_dict()) == list(before.state_dict())


def test_full_precision_norms_are_more_exact():
    # variance far below the square of the mean: bfloat16 statistics lose it
    images = 300 + torch.randn(4, 8, 16, 16)
    exact = nn.GroupNorm(2, 8)(images.bfloat16().float())
    half, kept = nn.Sequential(nn.GroupNorm(2, 8)), nn.Sequential(nn.GroupNorm(2, 8))
    half.bfloat16()
    kept.bfloat16()
    full_precision_norms(kept, torch.bfloat16)
    errors = [(m(images.bfloat16()).float() - exact).abs().max() for m in (half, kept)]
    assert errors[1] <= errors[0]
    assert errors[1] < 0.02
    assert kept[0].weight.dtype is torch.float32


@pytest.mark.parametrize("name", ["resnet18", "efficientnet-b0"])
def test_padded_input_changes_neither_outputs_nor_the_state_dictionary(name):
    plain = create_model(name, weights="random", num_classes=3).module.eval()
    model = copy.deepcopy(plain)
    path = pad_input_channels(model)
    conv = model.get_submodule(path.replace("/", "."))
    assert conv.in_channels == conv.weight.shape[1] == 4
    seen = []
    conv.register_forward_hook(lambda m, inputs, _: seen.append(inputs[0].shape[1]))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model(images), plain(images), atol=1e-5)
    assert seen == [4]
    saved, theirs = model.state_dict(), plain.state_dict()
    assert list(saved) == list(theirs)
    assert all(torch.equal(saved[key], theirs[key]) for key in theirs)
    other = create_model(name, weights="random", num_classes=3).module
    model.load_state_dict(other.state_dict())
    assert torch.equal(conv.weight[:, :3], next(other.parameters()))
    assert not conv.weight[:, 3].any()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(copied(images), model(images))


def test_padding_needs_a_convolution_of_images():
    with pytest.raises(UsageError, match="no convolution of three channels"):
        pad_input_channels(nn.Sequential(nn.Conv2d(1, 2, 3)))


def test_normalisation_is_torchvisions():
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(normalise(images), expected, atol=1e-6)
    assert torch.allclose(normalise(images.float()), expected, atol=1e-6)
    assert normalise(images, torch.bfloat16).dtype is torch.bfloat16


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_model_normalises_images_itself(kind):
    plain = tiny().eval()
    model = copy.deepcopy(plain)
    normalise_on_device(model)
    images = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    assert torch.equal(model(images.to(kind)), plain(normalise(images)))
    assert list(model.state_dict()) == list(plain.state_dict())


# a later conversion rounds the constants too
@pytest.mark.parametrize(("when", "tolerance"), [("before", 0.01), ("after", 0.05)])
def test_the_normalised_images_have_the_models_type(when, tolerance):
    model = tiny().eval()
    if when == "before":
        model.bfloat16()
    normalise_on_device(model)
    if when == "after":
        model.bfloat16()
    seen = []
    model.conv.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    images = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    assert model(images).dtype is torch.bfloat16
    assert torch.allclose(seen[0].float(), normalise(images), atol=tolerance)


def test_the_constants_move_with_the_model_and_its_copies():
    model = tiny()
    normalise_on_device(model)
    copied = copy.deepcopy(model).to("meta")
    assert copied(torch.zeros(1, 3, 12, 12, dtype=torch.uint8, device="meta")).is_meta
    assert not model(torch.zeros(1, 3, 12, 12, dtype=torch.uint8)).is_meta
    half = tiny()
    normalise_on_device(half, torch.float16, arithmetic=torch.float16)
    assert {b.dtype for n, b in half.named_buffers() if "image" in n} == {torch.float16}


def test_padding_and_normalisation_go_together():
    plain = tiny().eval()
    model = copy.deepcopy(plain)
    pad_input_channels(model)
    normalise_on_device(model)
    images = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    assert torch.allclose(model(images), plain(normalise(images)), atol=1e-5)
