"""Sample photographs of scikit-image and scikit-learn, and their classes.

    python -m ipucnn_efficientnet_lite.photographs copy FOLDER
    python -m ipucnn_efficientnet_lite.photographs check PREDICTIONS.csv

The first command writes photographs with known classes into FOLDER/named, and calibration images
for quantisation into FOLDER/calibration. The packages are searched, not imported. The second prints
the predicted classes in a file of `ipucnn run --predictions`, and fails if one of them is wrong.
"""

import csv
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

NAMED = {  # photograph: the classes of ImageNet that are right
    "chelsea.png": ("tabby", "tiger cat", "Egyptian cat"),  # the house cats without a breed
    "coffee.png": ("espresso",),
    "china.jpg": ("palace",),
    "flower.jpg": ("daisy",),
}
CALIBRATION = (*NAMED, "astronaut.png", "brick.png", "camera.png", "grass.png", "gravel.png",
               "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "motorcycle_right.png",
               "retina.jpg", "rocket.jpg")

_PLACES = (("skimage", "data"), ("sklearn", "datasets/images"))


def copy(folder):
    """Copy the photographs into the subfolders `named` and `calibration` of a folder.

    Raises:
        FileNotFoundError: no installed package has a photograph.
    """
    for subfolder, names in (("named", NAMED), ("calibration", CALIBRATION)):
        Path(folder, subfolder).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(str(_find(name)), str(Path(folder, subfolder, name)))


def check(predictions):
    """Return `(photograph, name, probability, right)` for each row of a file of predictions."""
    with open(predictions, newline="", encoding="utf-8") as file:
        rows = [(Path(row["path"]).name, row["name_1"], float(row["probability_1"]))
                for row in csv.DictReader(file)]
    return [(*row, row[1] in NAMED[row[0]]) for row in rows]


def _find(name):
    for package, subfolder in _PLACES:
        found = find_spec(package)
        for place in found.submodule_search_locations if found else ():
            path = Path(place, subfolder, name)
            if path.is_file():
                return path
    raise FileNotFoundError(f"no installed package has {name!r}: "
                            "pip install scikit-image scikit-learn")


def main(arguments):
    """Run one of the two commands."""
    if len(arguments) != 2 or arguments[0] not in ("copy", "check"):
        sys.exit(f"usage: {__doc__.splitlines()[2].strip()}")
    if arguments[0] == "copy":
        try:
            copy(arguments[1])
        except FileNotFoundError as error:
            sys.exit(f"error: {error}")
        return
    results = check(arguments[1])
    for photograph, name, probability, right in results:
        print(f"{photograph:12} {name:16} {probability:.2f}  {'right' if right else 'WRONG'}")
    if len(results) != len(NAMED) or not all(right for *_, right in results):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
