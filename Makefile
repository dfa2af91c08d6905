# make demo   install, then the whole way small: text -> tokens -> base, mid, SFT, DPO, RL -> scores, report, export, a chat
# make test   install, then the test suite
# make test-full   the rest: every combination of layouts, rare ways to be stopped          make test-all   both
# make test-native   the C++ part under the address and undefined-behaviour sanitizers
# make lint   ruff and mypy          make format   ruff's formatting
# make check-gpu   on a machine with a GPU, at most 8 minutes: right, and how fast (bench-gpu: the same)      make wheels   for one without a network
# make bench  training speed on this machine's CPU beside plain PyTorch, one table, in under 10 minutes (BENCH="--output FILE" ...)
# make clean  removes .venv, build products and the demo
#
# Works as the first command on a fresh clone: needs Python >= 3.10 with venv, and a C++ compiler, nothing else.
# PYTHON=python3.12 takes another Python, DATA="a.jsonl.zst b.parquet" trains the demo on your text.

PYTHON ?= python3
DATA ?=
BENCH ?=
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
# What DeepSpeed compiles where a recipe asks for it: a folder shared by several environments is compiled anew for each of them,
# and one lock file left by a killed start would make all of them wait for ever.
export TORCH_EXTENSIONS_DIR := $(abspath $(VENV))/torch_extensions

.PHONY: demo test test-full test-all test-native check-gpu bench-gpu bench wheels lint format clean

demo: $(VENV)/installed
	$(BIN)/python -m examples.demo $(DATA)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(TESTS)

test-full: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m full $(TESTS)

test-all: test test-full

# An instrumented build in a folder of its own. Leaks are Python's own; libstdc++ comes first so that its throws are seen.
NATIVE := build/native
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
test-native: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt setuptools pybind11
	rm -rf $(NATIVE) && mkdir -p $(NATIVE)
	cp -r setup.py pyproject.toml README.md LICENSE csrc megatron_iberis examples tests $(NATIVE)/
	rm -f $(NATIVE)/megatron_iberis/_C*.so
	cd $(NATIVE) && CFLAGS="$(SANITIZE)" CXXFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(abspath $(BIN))/python setup.py -q build_ext --inplace
	cd $(NATIVE) && ASAN_OPTIONS=detect_leaks=0,quarantine_size_mb=1 \
	  LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" \
	  $(abspath $(BIN))/python -m pytest -p no:cacheprovider tests/data tests/tokenizer/test_same_ids.py tests/kernels/test_int8_linear.py \
	  tests/kernels/test_softcap_pass.py tests/kernels/test_mixing.py

check-gpu bench-gpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.gpu

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.cpu $(BENCH)

wheels: $(VENV)/installed
	$(BIN)/python -m benchmarks.wheels

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build demo *.egg-info megatron_iberis/_C*.so

# The lowest version of transformers that an export runs on: tests/convert/huggingface/test_lowest_transformers.py.
LOWEST := $(VENV)/transformers-lowest

# Installs again when what is installed would differ: the build files or the C++ sources have changed.
SOURCES := setup.py pyproject.toml constraints.txt $(wildcard csrc/* csrc/*/*)

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is missing: install Python 3.10 or newer, or make PYTHON=... " >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $$($(PYTHON) --version) is too old: make PYTHON=python3.12 (3.10 or newer)." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian: apt install python3-venv)." >&2; exit 2; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || { echo "error: there is no C++ compiler: install one (Debian: apt install g++)." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hf,serve,report]'
	@touch $@

# All of the above and more, in one go: each installation compiles the C++ part.
$(VENV)/installed-dev: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	rm -rf $(LOWEST) && $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(LOWEST) transformers==5.18.0
	@touch $(VENV)/installed $@
