"""From the start of a process to the class of one photograph, against scripts without ipucnn.

Each round runs, in turn: a script that decodes one JPEG and calls ONNX Runtime or OpenVINO; the
same with `ipucnn run --onnx`; `ipucnn run --model` with a stored graph; and the same model with a
plain torch script and with `ipucnn run --backend torch`. Beside the seconds of the wall clock there
are those of the processors, which other processes of the machine change less, and the peak of
resident memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

from common import Measured, measured, save, summary

DECODED = """
import sys, numpy
from PIL import Image
image = Image.open(sys.argv[1]).convert("RGB").resize((224, 224), Image.BILINEAR)
images = numpy.asarray(image).transpose(2, 0, 1)[None]
"""
SCRIPTS = {
    "onnxruntime": DECODED + """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2])
kind = numpy.uint8 if "uint8" in session.get_inputs()[0].type else numpy.float32
logits = session.run(None, {session.get_inputs()[0].name: numpy.ascontiguousarray(images, kind)})[0]
print(logits.argmax(1))
""",
    "openvino": DECODED + """
import openvino
model = openvino.Core().compile_model(sys.argv[2], "CPU", {"PERFORMANCE_HINT": "LATENCY"})
kind = numpy.uint8 if "u8" in str(model.input(0).element_type) else numpy.float32
logits = model(numpy.ascontiguousarray(images, kind))[0]
print(logits.argmax(1))
""",
    "torch": DECODED + """
import torch, torchvision
torch.manual_seed(0)
model = getattr(torchvision.models, sys.argv[3])().eval()
with torch.inference_mode():
    logits = model(torch.from_numpy(images.copy()).float())
print(logits.argmax(1))
""",
}


def commands(photo: Path, file: Path, network: str) -> Dict[str, List[str]]:
    """Return the command lines, by name."""
    run = [sys.executable, "-m", "ipucnn", "run", "--data-dir", str(photo), "--progress", "off"]
    model = ["--model", network, "--weights", "random"]
    found = {f"{name}, script": [sys.executable, "-c", script, str(photo), str(file), network]
             for name, script in SCRIPTS.items()}
    for engine in ("onnxruntime", "openvino"):
        found[f"{engine}, --onnx"] = [*run, "--onnx", str(file), "--backend", engine]
        found[f"{engine}, --model"] = [*run, *model, "--backend", engine]
    found["torch, --model"] = [*run, *model, "--backend", "torch", "--no-compile"]
    return found


def main() -> None:
    """Measure all commands in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="resnet50")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "IPUCNN_CACHE": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
        ipucnn = [sys.executable, "-m", "ipucnn"]
        subprocess.run([*ipucnn, "data", "shapes", "--out", f"{folder}/shapes", "--per-class", "1",
                        "--size", "500"], check=True, stdout=subprocess.DEVNULL)
        photo = next(Path(folder, "shapes").rglob("*.jpg"))
        file = Path(folder, "net.onnx")
        subprocess.run([*ipucnn, "export", "--model", given.model, "--weights", "random",
                        "--dynamic-batch", "--output", str(file)], check=True,
                       stdout=subprocess.DEVNULL, env=environment)
        todo = commands(photo, file, given.model)
        found: Dict[str, List[Measured]] = {name: [] for name in todo}
        for turn in range(given.rounds + 1):
            for name, command in todo.items():
                once = measured(command, environment)
                if turn:  # the first fills the caches
                    found[name].append(once)
    save("first_prediction", {
        "what": f"one photograph of 500 x 500 pixels, {given.model}, processes in turn",
        "rounds": given.rounds,
        **{figure: {name: summary([getattr(one, figure) for one in many], 3)
                    for name, many in found.items()} for figure in Measured._fields},
        "ratio_to_the_script_of_the_engine": {
            figure: {name: summary([
                getattr(one, figure) / getattr(bare, figure) for one, bare in zip(
                    many, found[f"{name.partition(',')[0]}, script"])], 3)
                for name, many in found.items() if not name.endswith("script")}
            for figure in Measured._fields}})


if __name__ == "__main__":
    main()
