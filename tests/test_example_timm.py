"""The example with the networks of timm: its records, and its predictions compared with timm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

import ipucnn
from ipucnn.core.errors import UsageError, WeightsError
from ipucnn.core.registry.registry import registry
from ipucnn.data.resize import eval_transform

SOURCE = Path(__file__).parents[1] / "examples" / "ipucnn-timm" / "src" / "ipucnn_timm"
STORED = json.loads((SOURCE / "networks.json").read_text())


@pytest.fixture
def plugin(fake_distribution):
    """Install the example for one test."""
    fake_distribution("ipucnn-timm", {f"ipucnn_timm/{path.name}": path.read_text() for path in (
        *SOURCE.glob("*.py"), SOURCE / "networks.json")}, {"models.timm": "ipucnn_timm.plugin"})
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "ipucnn_timm"]:
        del sys.modules[name]


def test_a_record_per_network(plugin):
    specs = {spec.name: spec for spec in (
        row.spec for row in registry().rows("model", "timm/*"))}
    assert set(specs) == {f"timm/{name}" for name in STORED["networks"]}
    assert len(specs) > 1300
    assert sum(len(spec.weights) for spec in specs.values()) > 1700
    for spec in specs.values():
        for one in spec.weights:
            assert one.url.startswith("https://")
            assert one.licence
    tags = [one.tag for one in specs["timm/resnet50"].weights]
    assert tags[0] == "a1_in1k"
    assert "tv2_in1k" in tags
    small = next(one for one in specs["timm/resnet18"].weights if one.tag == "a3_in1k")
    assert small.preprocessing.summary().startswith(
        "160 pixels (centre of 168, shortest, bicubic)")
    assert specs["timm/vit_base_patch16_224"].preprocessing.mean == (0.5, 0.5, 0.5)


def test_images_are_resized_to_the_size_that_timm_rounds_to(plugin):
    registry().rows("model")
    from ipucnn_timm.plugin import _preprocessing

    for size, crop, *rest in STORED["images"]:
        assert _preprocessing(size, crop, *rest).resize_size == int(size / crop), (size, crop)


IMPORTED = """if True:
    import sys
    from ipucnn.core.registry.registry import registry
    registry().{call}
    print(sorted({{m.split(".")[0] for m in sys.modules}} & {{"timm", "torch", "ipucnn_timm"}}))
"""


@pytest.mark.parametrize(("call", "modules"), [
    ("get('model', 'resnet50')", "[]"), ("rows()", "['ipucnn_timm']")])
def test_a_listing_imports_neither_timm_nor_torch(plugin, call, modules):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", IMPORTED.format(call=call)], env=env,
                          capture_output=True, text=True)
    assert done.stdout.strip() == modules, done.stderr


# -- with timm itself ----------------------------------------------------------------------------

@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a function that puts random weights into the hub's cache, as a download does."""
    timm = pytest.importorskip("timm", reason="needs timm (pip install timm)")
    pytest.importorskip("huggingface_hub")
    import torch
    from huggingface_hub import constants
    from safetensors.torch import save_model

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def publish(name):
        config = timm.models.get_pretrained_cfg(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = timm.create_model(name.partition(".")[0], num_classes=config.num_classes)
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
        folder = tmp_path / "hub" / f"models--{config.hf_hub_id.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("1")
        (folder / "snapshots" / "1").mkdir(parents=True)
        save_model(model, str(folder / "snapshots" / "1" / "model.safetensors"))
        return timm.create_model(name, pretrained=True,
                                 cache_dir=str(tmp_path / "hub")).eval()

    return publish


def photographs(folder, sizes):
    """Write images of several shapes; the shorter side of the first is that before the crop."""
    chance = numpy.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        y, x = numpy.mgrid[:height, :width]
        pixels = numpy.stack([x * 3 % 256, y * 2 % 256, 128 + 99 * numpy.sin(x / 9)], -1)
        noisy = pixels + chance.normal(0, 12, pixels.shape)
        path = folder / f"{number}.png"
        Image.fromarray(noisy.clip(0, 255).astype("uint8")).save(path)
        yield path


@pytest.mark.parametrize("name", ["test_efficientnet.r160_in1k", "test_vit.r160_in1k"])
def test_logits_and_pixels_are_those_of_timm(plugin, hub, tmp_path, name):
    import torch

    theirs = hub(name)
    import timm

    made = timm.data.resolve_model_data_config(theirs)
    transform = timm.data.create_transform(**made)
    raw = timm.data.create_transform(**{**made, "mean": (0, 0, 0), "std": (1, 1, 1)})
    files = list(photographs(tmp_path, [(168, 200), (320, 240), (97, 130), (500, 375)]))
    images = [Image.open(file).convert("RGB") for file in files]
    with torch.no_grad():
        expected = theirs(torch.stack([transform(image) for image in images]))
    architecture, _, tag = name.partition(".")
    with ipucnn.load(f"timm/{architecture}", weights=f"pretrained:{tag}", backend="torch",
                     precision="full", batch_size=4) as model:
        with torch.no_grad():
            own = model.module(torch.stack([transform(image) for image in images]))
        assert torch.allclose(own, expected, atol=1e-5)
        for image in images:
            ours = eval_transform(numpy.array(image), model.card.preprocessing).astype(int)
            difference = numpy.abs(ours - (255 * raw(image)).round().permute(1, 2, 0).numpy())
            assert difference.max() <= 2
            assert (difference > 0).mean() < 0.01
        exact = model.predict(str(files[0]), top_k=1)  # needs no resizing
    probabilities = expected[0].softmax(0)
    assert exact.classes[0] == int(probabilities.argmax())
    assert exact.probability == pytest.approx(float(probabilities.max()), abs=1e-5)


def test_drop_path_and_input_size_reach_the_network(plugin, hub):
    from ipucnn.models.build import create_model

    built = create_model("timm/test_vit", weights="random", drop_path=0.3, input_size=192)
    rates = [module.drop_prob for module in built.module.modules() if hasattr(module, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)
    assert built.input_size == 192
    with pytest.raises(UsageError, match="cannot read images of 190 pixels"):
        create_model("timm/test_vit", weights="random", input_size=190)
    with pytest.raises(WeightsError, match="cannot get weights 'r160_in1k' of 'test_vit'"):
        create_model("timm/test_vit", weights="pretrained")
