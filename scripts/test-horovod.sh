#!/bin/sh
# The tests of several instances with the real Horovod: an environment is made, Horovod is built
# into it, and two processes and more talk over Gloo.  test-horovod.sh PYTHON ENVIRONMENT
#
# Horovod 0.28.1 builds against a CPU build of torch only. From torch 2.1 on it needs C++17, and its
# build files put an older standard last: the wrapper has the final word. torchvision is not needed.
set -eu
python=$1 venv=$2
torch=${HOROVOD_TORCH:-torch==2.13.0}
if [ ! -f "$venv/.horovod" ]; then
  "$python" -m venv "$venv"
  # shellcheck disable=SC2086 # PIP_ARGS is a list of words
  "$venv/bin/pip" install --quiet ${PIP_ARGS:-} "$torch" numpy 'setuptools<81' wheel packaging \
    cloudpickle psutil cffi pyyaml typer rich pluggy platformdirs 'plotext<6' Pillow safetensors pytest \
    pytest-timeout pytest-xdist hatchling editables
  if ! "$venv/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    echo "error: '$torch' is a CUDA build, with which Horovod does not build here" >&2
    echo "hint: make test-horovod PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'" >&2
    exit 2
  fi
  mkdir -p "$venv/build"
  printf '#!/bin/sh\nexec %s "$@" -std=gnu++17\n' "${CXX:-g++}" > "$venv/build/c++"
  chmod +x "$venv/build/c++"
  CXX=$(cd "$venv/build" && pwd)/c++ HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 \
    HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
    "$venv/bin/pip" install --quiet --no-build-isolation --no-binary horovod horovod==0.28.1
  "$venv/bin/pip" install --quiet --no-deps --no-build-isolation -e .
  touch "$venv/.horovod"
fi
POPRUN_DOUBLE_HOROVOD=real OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest tests/commands/test_poprun.py
