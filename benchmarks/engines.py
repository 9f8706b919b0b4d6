"""Every engine through `ipucnn.run` against the engine called directly, in one process."""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from common import save, summary

import ipucnn
from ipucnn.core.machine import usable_cores
from ipucnn.models.build import create_model
from ipucnn.onnx.job import export
from ipucnn.onnx.options import ExportOptions

MODELS = ("resnet50", "mobilenet", "efficientnet-b0", "resnext101")
PRECISIONS = ("full", "half")
WARMUP = 2

Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured: a network, its ONNX file, `full` or `half`, and images per call."""

    model: str
    path: str
    precision: str
    batch: int


def torch_call(case: Case) -> Call:
    """Return a call of the plain module, in the layout and type that are best for it."""
    dtype = torch.bfloat16 if case.precision == "half" else torch.float32
    network = create_model(case.model, weights="random")
    module = network.module.eval().to(dtype).to(memory_format=torch.channels_last)
    shape = (case.batch, 3, network.input_size, network.input_size)
    images = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)

    def call() -> None:
        with torch.inference_mode():
            module(images)
    return call


def onnxruntime_call(case: Case) -> Call:
    """Return a call of a session on the file; on a CPU it computes in float32 in any case."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(case.path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    images = torch.randn(entry.shape).numpy()
    return lambda: session.run(None, {entry.name: images})


def openvino_call(case: Case) -> Call:
    """Return a call of one request, whose input is set once, on the file."""
    import openvino

    core = openvino.Core()
    bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    compiled = core.compile_model(case.path, "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": usable_cores(),
        "INFERENCE_PRECISION_HINT": "bf16" if case.precision == "half" and bf16 else "f32"})
    request = compiled.create_infer_request()
    images = torch.randn(list(compiled.inputs[0].shape)).numpy()
    request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
    return request.infer


DIRECT: Dict[str, Callable[[Case], Call]] = {
    "torch": torch_call, "onnxruntime": onnxruntime_call, "openvino": openvino_call}


def direct_rate(call: Call, batch: int, calls: int) -> float:
    """Return the mean images per second of `calls` calls, as a run's result means it."""
    rates = []
    for number in range(WARMUP + calls):
        started = time.perf_counter()
        call()
        if number >= WARMUP:
            rates.append(batch / (time.perf_counter() - started))
    return sum(rates) / len(rates)


def run_rate(engine: str, case: Case, calls: int) -> float:
    """Return the images per second that `ipucnn.run` tells."""
    what: Dict[str, Any] = ({"model": case.model, "weights": "random"} if engine == "torch"
                            else {"onnx": case.path})
    result = ipucnn.run(backend=engine, data="synthetic", precision=case.precision,
                        batch_size=case.batch, iterations=calls + WARMUP, warmup=WARMUP, **what)
    assert result.throughput is not None
    return result.throughput.mean


def main() -> None:
    """Measure each engine in turn, and within a turn both ways in changing order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--engines", nargs="+", default=list(DIRECT), choices=list(DIRECT))
    arguments = parser.parse_args()
    batch = arguments.batch_size
    torch.set_num_threads(usable_cores())

    found: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            path = str(Path(folder) / f"{model}.onnx")
            export(ExportOptions(model=model, weights="random", target="onnxruntime",
                                 batch_size=batch, output=path))
            for precision in PRECISIONS:
                case = Case(model, path, precision, batch)
                calls = {engine: DIRECT[engine](case) for engine in arguments.engines}
                through: Dict[str, List[float]] = {engine: [] for engine in calls}
                direct: Dict[str, List[float]] = {engine: [] for engine in calls}
                for turn in range(arguments.rounds):
                    for engine, call in calls.items():
                        for way in sorted((0, 1), reverse=bool(turn % 2)):
                            if way:
                                direct[engine].append(direct_rate(call, batch, arguments.calls))
                            else:
                                through[engine].append(
                                    run_rate(engine, case, arguments.calls))
                            gc.collect()
                found[f"{model}, {precision}"] = {
                    engine: {"ipucnn_run": summary(through[engine]),
                             "directly": summary(direct[engine]),
                             "ratio": summary([ours / theirs for ours, theirs in zip(
                                 through[engine], direct[engine])])}
                    for engine in calls}
    save("engines", {
        "what": "synthetic data, images per second through `ipucnn.run` and of the engine called "
                "directly (onnxruntime and openvino on the same ONNX file, torch eagerly)",
        "batch_size": batch, "rounds": arguments.rounds, "calls": arguments.calls,
        "images_per_second": found})


if __name__ == "__main__":
    main()
