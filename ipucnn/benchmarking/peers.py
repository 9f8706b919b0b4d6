"""Other programs as contenders of `ipucnn bench`: called directly, without code of `ipucnn`.

Each is used as its own documentation shows it: a network of torchvision in eager mode or compiled
by `torch.compile` with frozen weights; an ONNX file in ONNX Runtime, and in OpenVINO with its
hint for latency or for throughput; a network of timm in the loop that timm's `benchmark.py` and
`inference.py` have. Files are read by Pillow, torchvision's transforms and torch's `DataLoader`;
by timm, with its own transforms and loader.
"""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from ipucnn.benchmarking.case import FILES, SYNTHETIC, Case, Facts, Link, RefusedError, serve
from ipucnn.benchmarking.limits import jpeg_files
from ipucnn.core.machine import compute_threads, thread_count

TORCHVISION_NAMES = {"mobilenet": "mobilenet_v2", "resnext50": "resnext50_32x4d",
                     "resnext101": "resnext101_32x8d"}
TIMM_NAMES = {"mobilenet": "mobilenetv2_100", "resnext50": "resnext50_32x4d",
              "resnext101": "resnext101_32x8d", "mobilenet-v3-large": "mobilenetv3_large_100",
              "mobilenet-v3-small": "mobilenetv3_small_100"}
"""The names of networks elsewhere, where they are not the same."""


class Engine:
    """A way to compute batches of normalised images.

    Attributes:
        in_flight: calls that it computes at a time.
        facts: how it is set up.
    """

    in_flight = 1

    def __init__(self) -> None:
        self.facts: Facts = {}

    def own(self) -> None:
        """Start a call on images of its own."""
        raise NotImplementedError

    def answer(self, images: Any) -> None:
        """Start a call on a tensor of images."""
        raise NotImplementedError

    def finish(self) -> None:
        """Wait for the calls that were started."""


class _Torch(Engine):
    """A module in torch."""

    def __init__(self, module: Any, case: Case) -> None:
        super().__init__()
        import torch

        self._torch = torch
        self._place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._kind = torch.float32
        if case.precision == "16.16":
            self._kind = torch.float16 if self._place.type == "cuda" else torch.bfloat16
        torch.set_num_threads(compute_threads())
        self._module = module.eval().to(self._place, self._kind)
        self._images = torch.randn(case.shape, device=self._place, dtype=self._kind)
        self.facts = {"device": self._place.type, "type": str(self._kind).rpartition(".")[2],
                      "threads": torch.get_num_threads(), "version": torch.__version__}

    def compiled(self) -> _Torch:
        """Return this, compiled with frozen weights."""
        import torch._inductor.config as inductor

        inductor.freezing = True
        self._module = self._torch.compile(self._module)
        return self

    def own(self) -> None:
        with self._torch.inference_mode():
            self._module(self._images)

    def answer(self, images: Any) -> None:
        with self._torch.inference_mode():
            self._module(images.to(self._place, self._kind)).argmax(1).tolist()

    def finish(self) -> None:
        if self._place.type == "cuda":
            self._torch.cuda.synchronize()


class _OnnxRuntime(Engine):
    """ONNX Runtime on an ONNX file."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        if case.precision != "32.32":
            raise RefusedError("computes a file of float32 in float32")
        import numpy
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = compute_threads()
        self._session = onnxruntime.InferenceSession(
            case.onnx, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        self._images = numpy.random.default_rng(0).standard_normal(case.shape, numpy.float32)
        self.facts = {"threads": compute_threads(), "version": onnxruntime.__version__}

    def own(self) -> None:
        self._session.run(None, {self._name: self._images})

    def answer(self, images: Any) -> None:
        self._session.run(None, {self._name: images.numpy()})[0].argmax(1)


class _OpenVino(Engine):
    """OpenVINO on an ONNX file, as many requests at a time as its hint makes best."""

    def __init__(self, case: Case, hint: str) -> None:
        super().__init__()
        if case.precision not in ("32.32", "16.16"):
            raise RefusedError("quantises no network by itself")
        import numpy
        import openvino

        core = openvino.Core()
        kinds = {"32.32": "f32", "16.16": "bf16"}
        if case.precision == "16.16" and "BF16" not in core.get_property(
                "CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RefusedError("this processor has no bfloat16 instructions that it uses")
        model = core.read_model(case.onnx)
        model.reshape(list(case.shape))
        compiled = core.compile_model(model, "CPU", {
            "PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": kinds[case.precision],
            "INFERENCE_NUM_THREADS": thread_count()})
        self.in_flight = 1 if hint == "LATENCY" else compiled.get_property(
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._queue = openvino.AsyncInferQueue(compiled, self.in_flight)
        if case.data == FILES:
            self._queue.set_callback(
                lambda request, _: request.get_output_tensor().data.argmax(1))
        images = numpy.random.default_rng(0).standard_normal(case.shape, numpy.float32)
        for request in self._queue:
            request.set_input_tensor(openvino.Tensor(images))
        self.facts = {"hint": hint.lower(), "requests": self.in_flight,
                      "version": openvino.__version__}

    def own(self) -> None:
        self._queue.start_async()
        if self.in_flight == 1:
            self._queue.wait_all()

    def answer(self, images: Any) -> None:
        self._queue.start_async({0: images.numpy()})

    def finish(self) -> None:
        self._queue.wait_all()


def torchvision_network(case: Case) -> Any:
    """Return torchvision's network of a case, with random weights.

    Raises:
        RefusedError: torchvision has none.
    """
    import torchvision

    name = TORCHVISION_NAMES.get(case.model, case.model.replace("-", "_"))
    maker = getattr(torchvision.models, name, None)
    if not callable(maker):
        raise RefusedError(f"torchvision has no network {case.model!r}")
    return maker(weights=None)


def timm_network(case: Case) -> Any:
    """Return timm's network of a case, with random weights.

    Raises:
        RefusedError: timm has none.
    """
    timm: Any = import_module("timm")
    name = TIMM_NAMES.get(case.model, case.model.replace("-", "_"))
    if not timm.is_model(name):
        raise RefusedError(f"timm has no network {case.model!r}")
    return timm.create_model(name, pretrained=False)


ENGINES: Dict[str, Callable[[Case], Engine]] = {
    "torchvision": lambda case: _Torch(torchvision_network(case), case),
    "torch-compile": lambda case: _Torch(torchvision_network(case), case).compiled(),
    "onnxruntime": _OnnxRuntime,
    "openvino-latency": lambda case: _OpenVino(case, "LATENCY"),
    "openvino-throughput": lambda case: _OpenVino(case, "THROUGHPUT"),
    "timm": lambda case: _Torch(timm_network(case), case)}


def inference(name: str, case: Case, link: Link) -> Facts:
    """Measure another program's inference; see `Link`.

    Raises:
        RefusedError: it cannot compute this.
    """
    if case.precision == "int8":
        raise RefusedError("quantises no network by itself")
    if case.data not in (SYNTHETIC, FILES):
        raise RefusedError("has no images of '--data generated'")
    check_files(case)
    engine = ENGINES[name](case)
    if name == "timm":
        engine.facts["timm"] = import_module("timm").__version__

    of_call = 0.0

    def calls(wanted: float) -> Tuple[float, float]:
        nonlocal of_call
        if of_call < wanted:  # others have used the caches, which a longer call hardly notices
            engine.own()
            engine.finish()
        begin, count = time.perf_counter(), 0
        while not count or time.perf_counter() - begin < wanted:
            for _ in range(engine.in_flight):  # of fewer, the last ones would leave threads idle
                engine.own()
            count += engine.in_flight
        engine.finish()
        seconds = time.perf_counter() - begin
        of_call = seconds / count
        return count * case.batch_size, seconds

    def whole(_: float) -> Tuple[float, float]:
        begin, images = time.perf_counter(), 0
        for batch in (timm_batches if name == "timm" else batches)(case):
            engine.answer(batch)
            images += len(batch)
        engine.finish()
        return images, time.perf_counter() - begin

    calls(0.0)
    if case.data == SYNTHETIC:
        calls(0.0)
        serve(link, calls)
    else:
        whole(0.0)  # as for `ipucnn`, whose first run is not timed either
        serve(link, whole)
    return engine.facts


def batches(case: Case) -> Iterator[Any]:
    """Yield whole batches of files, read by Pillow, torchvision's transforms and `DataLoader`."""
    from torch.utils.data import DataLoader
    from torchvision import transforms

    how = case.preprocessing
    size = how.input_size
    prepare = transforms.Compose([
        transforms.Resize(round(size / how.crop_fraction)), transforms.CenterCrop(size),
        transforms.ToTensor(), transforms.Normalize(how.mean, how.std)])
    pictures: Any = Pictures(jpeg_files(case.folder, case.samples), prepare)
    yield from DataLoader(pictures, case.batch_size, num_workers=thread_count(),
                          drop_last=True)


def check_files(case: Case) -> None:
    """Check that there are enough files for a micro-batch, of which loaders return whole ones.

    Raises:
        RefusedError: there are fewer.
    """
    if case.data == FILES:
        count = len(jpeg_files(case.folder, case.samples))
        if count < case.batch_size:
            raise RefusedError(f"a micro-batch has {case.batch_size} images, and a pass {count}")


class Pictures:
    """Image files that Pillow reads, as a dataset of torch.

    Args:
        files: their paths.
        prepare: what is done with each picture.
    """

    def __init__(self, files: List[Path], prepare: Callable[[Any], Any]) -> None:
        self._files, self._prepare = files, prepare

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return self._prepare(Image.open(self._files[index]).convert("RGB"))


def timm_batches(case: Case) -> Iterator[Any]:
    """Yield whole batches of files, read by timm's dataset and loader."""
    timm: Any = import_module("timm.data")
    how = case.preprocessing
    dataset = timm.create_dataset("", root=case.folder)
    dataset.reader.samples = dataset.reader.samples[:case.samples]
    loader = timm.create_loader(
        dataset, case.shape[1:], case.batch_size, use_prefetcher=False,
        num_workers=thread_count(), crop_pct=how.crop_fraction, mean=how.mean, std=how.std,
        interpolation=how.interpolation)
    for images, _ in loader:
        if len(images) == case.batch_size:
            yield images
