"""From the start of a process to the class of one photograph, against scripts without ipucnn.

Each round runs, in turn: a script that decodes one JPEG and calls ONNX Runtime or OpenVINO; the
same with `ipucnn run --onnx`; `ipucnn run --model` with a stored graph; and the same model with a
plain torch script and with `ipucnn run --backend torch`. Seconds are of the wall clock; memory is
the largest that a process had.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

from common import save, summary
from processes import described, in_turn

MODEL = "resnet50"
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
    "torch": DECODED + f"""
import torch, torchvision
torch.manual_seed(0)
model = torchvision.models.{MODEL}().eval()
with torch.inference_mode():
    logits = model(torch.from_numpy(images.copy()).float())
print(logits.argmax(1))
""",
}


def commands(photo: Path, file: Path) -> Dict[str, List[str]]:
    """Return the command lines, by name."""
    run = [sys.executable, "-m", "ipucnn", "run", "--data-dir", str(photo), "--progress", "off"]
    model = ["--model", MODEL, "--weights", "random"]
    found = {f"{name}, script": [sys.executable, "-c", script, str(photo), str(file)]
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
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "IPUCNN_CACHE": folder}
        ipucnn = [sys.executable, "-m", "ipucnn"]
        subprocess.run([*ipucnn, "data", "shapes", "--out", f"{folder}/shapes", "--per-class", "1",
                        "--size", "500"], check=True, stdout=subprocess.DEVNULL)
        photo = next(Path(folder, "shapes").rglob("*.jpg"))
        file = Path(folder, "net.onnx")
        subprocess.run([*ipucnn, "export", "--model", MODEL, "--weights", "random",
                        "--dynamic-batch", "--output", str(file)], check=True,
                       stdout=subprocess.DEVNULL, env=environment)
        found = in_turn(commands(photo, file), environment, rounds)
    seconds = {name: [one.seconds for one in each] for name, each in found.items()}
    save("first_prediction", {
        "what": f"one photograph of 500 x 500 pixels, {MODEL}, processes in turn",
        "rounds": rounds,
        **described(found),
        "ratio_to_the_script_of_the_engine": {
            name: summary([a / b for a, b in zip(
                values, seconds[f"{name.partition(',')[0]}, script"])])
            for name, values in seconds.items() if not name.endswith("script")}})


if __name__ == "__main__":
    main()
