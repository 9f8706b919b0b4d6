# `make demo` and `make test` are all a newcomer needs; each sets up what it uses, once.

PYTHON ?= python3
VENV   ?= .venv
PIP_ARGS ?=
SIMD   ?= 0
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := demo

# cores this process may use; tests run in that many processes of one thread each
JOBS := $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := all
.PHONY: all install get_data demo test test-sdk test-matrix test-horovod test-newest test-lowest lint docs gallery bench bench-types bench-small bench-data conformance faults fuzz clean

all: install get_data  ## the environment and the sample images

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip uninstall -qq --yes pillow-simd  # it would share files with Pillow
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[test,dev,parquet]'
	$(BIN)/python -m compileall -q ipucnn
	touch $@

install: $(STAMP)  ## the environment; SIMD=1 builds pillow-simd for this processor
ifeq ($(SIMD),1)
	$(BIN)/python -m pip uninstall --quiet --yes pillow
	CC="cc -march=native" $(BIN)/python -m pip install --no-cache-dir --force-reinstall \
	  --no-binary pillow-simd --no-deps pillow-simd
	$(BIN)/python -c "import PIL, PIL.Image; print('Pillow-SIMD', PIL.__version__)"
endif

get_data: $(STAMP)  ## sample images for `ipucnn run --data real`
	$(BIN)/ipucnn data fetch sample-images --out data/images

demo: $(STAMP)  ## train on JPEG files, interrupt and resume the training, validate and classify
	sh scripts/demo.sh $(BIN) $(DEMO)

test: $(STAMP)  ## the tests, on this Python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-sdk:  ## the tests on the Poplar SDK's own versions: Python 3.8, torch 2.0.1
	@python38=$$(sh scripts/find-python.sh 3.8) || { \
	  echo "error: no Python 3.8 was found, which the Poplar SDK lane needs" >&2; \
	  echo "hint: install one (pyenv install 3.8) or name it: make test-sdk PYTHON38=/path/to/python3.8" >&2; \
	  exit 2; }; \
	$(MAKE) test VENV=.venv-sdk PYTHON="$$python38"

test-matrix: $(STAMP)  ## every option of the IPU backends with every family and precision, on the doubles
	OMP_NUM_THREADS=1 $(BIN)/python tests/plugins/backends/engine_matrix.py benchmarks/results/engine_matrix.json

test-horovod:  ## several instances with the real Horovod, which is built (needs a C++ compiler, CMake)
	sh scripts/test-horovod.sh $(PYTHON) .venv-horovod

test-newest: $(STAMP)  ## the command line on the newest typer and pluggy, whatever is pinned
	rm -rf build/newest
	$(BIN)/python -m pip install --quiet --target build/newest --upgrade typer pluggy
	OMP_NUM_THREADS=1 PYTHONPATH=build/newest $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/commands/test_cli.py tests/core/registry/test_registry.py

# that typer uses what newer releases of click warn of, and warnings are errors in the tests
test-lowest: $(STAMP)  ## the command line on the lowest typer and pluggy that are declared
	rm -rf build/lowest
	$(BIN)/python -m pip install --quiet --target build/lowest --upgrade typer==0.17.0 pluggy==1.5.0 'click<8.2'
	OMP_NUM_THREADS=1 PYTHONPATH=build/lowest $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/commands/test_cli.py tests/core/registry/test_registry.py

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

gallery: $(STAMP)  ## the pictures of docs/gallery.md (needs Chromium); RECORD=1 repeats their runs
	$(BIN)/python docs/gallery.py $(if $(RECORD),--record)

docs: gallery .venv-docs/.installed  ## the reference pages, from the code, and the site in build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

.venv-docs/.installed: mkdocs.yml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet $(PIP_ARGS) 'mkdocs>=1.6,<2' 'mkdocs-material>=9.5,<10'
	touch $@

# networks and micro-batches of `make bench`, which takes an hour and a half on two quiet cores
BENCH_MODELS ?= resnet18 resnet50 mobilenet efficientnet-b0
BENCH_BATCHES ?= 1 4 16 64
BENCH_FAMILIES ?= resnet34 resnet101 resnext101 mobilenet-v3-small mobilenet-v3-large \
  efficientnet-b1 efficientnet-b2 resnet8-cifar resnet20-cifar resnet56-cifar resnet110-cifar \
  resnet18-cifar resnext50-cifar
BENCH_FILES ?= mobilenet resnet18
BENCH := $(BIN)/ipucnn bench --progress off --out benchmarks/results/performance_

bench: $(STAMP)  ## measure docs/performance.md again, against other programs, of which timm is installed
	$(BIN)/python -m pip install --quiet timm
	$(BENCH)inference.json --model $(BENCH_MODELS) --batch-size $(BENCH_BATCHES) --rounds 3 \
	  --processes 3 --seconds 0.2 --backend auto --against torchvision onnxruntime openvino
	$(BENCH)further.json --model resnet50 mobilenet resnext50 --batch-size 1 16 --rounds 3 \
	  --processes 3 --seconds 0.2 --backend auto --against torch-compile timm onnxruntime openvino
	$(BENCH)families.json --model $(BENCH_FAMILIES) --batch-size 1 16 --rounds 2 \
	  --processes 3 --seconds 0.2 --backend auto --against onnxruntime openvino
	$(BENCH)training.json --train --model resnet18 mobilenet --batch-size 16 --seconds 2 \
	  --against torchvision timm
	rm -rf build/photos
	$(BIN)/ipucnn data shapes --out build/photos --per-class 32 --size 500
	$(BENCH)training_files.json --train --model resnet18 --batch-size 16 --seconds 5 \
	  --data-dir build/photos --against torchvision timm
	$(BENCH)files.json --model resnet50 mobilenet --batch-size 16 --data-dir build/photos \
	  --backend auto --against torchvision onnxruntime openvino timm
	$(BIN)/python benchmarks/first_prediction.py --rounds 3
	$(BIN)/python benchmarks/end_to_end.py --rounds 1 --networks $(BENCH_FILES)
	$(BIN)/python docs/generate.py

bench-types: $(STAMP)  ## the same in half precision and in 8-bit integers, where the processor has them
	$(BENCH)half.json --precision half --model resnet50 mobilenet --batch-size 1 16 --rounds 11 \
	  --seconds 0.2 --backend auto --against torchvision openvino
	$(BENCH)int8.json --precision full int8 --data generated --model resnet50 mobilenet \
	  --batch-size 16 --rounds 2 --backend onnxruntime openvino
	$(BIN)/python docs/generate.py

bench-small: $(STAMP)  ## measure the costs of start-up, listings and options again
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python benchmarks/options.py

bench-data: $(STAMP)  ## the data pipeline against other loaders, of which timm is installed for it
	$(BIN)/python -m pip install --quiet timm
	$(BIN)/python benchmarks/data/pipeline.py
	$(BIN)/python benchmarks/data/choices.py
	$(BIN)/python benchmarks/data/memory.py

conformance: $(STAMP)  ## the conformance checks on every built-in plugin
	$(BIN)/python benchmarks/conformance.py

faults: $(STAMP)  ## inject failures into trainings, and compare the results with undisturbed ones
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/faults.py --every-write

fuzz: $(STAMP)  ## read malformed files of every format, for some minutes
	$(BIN)/python benchmarks/fuzz.py

clean:  ## remove what make created
	rm -rf $(VENV) .venv-sdk .venv-horovod .venv-docs build $(DEMO) .pytest_cache .mypy_cache .ruff_cache
