# The two commands: `make demo` (the main job on the embedded sample) and `make test`.
# Both set everything up first, in .venv.
#
#   PYTHON=python3.11        the interpreter .venv is made from (3.10 or newer)
#   TORCH_BACKEND=cpu        choose a torch build (cpu, cu128, auto, …); empty: the registry's default,
#                            which is the CUDA build on Linux and MPS on a Mac
#   ROOT=workspace           where `make demo` writes
PYTHON ?= python3
TORCH_BACKEND ?=
ROOT ?= workspace
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

export ORT_DISABLE_TELEMETRY := 1

.PHONY: setup demo test test-slow lint format benchmark clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt overrides.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "ffhqref needs Python 3.10 or newer: make PYTHON=python3.11 " + "setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.8"
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode \
	  $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)") \
	  $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) \
	  --constraint constraints.txt --override overrides.txt --editable ".[all,dev]"
	@touch $@

demo: setup
	$(BIN)/ffhqref run root=$(ROOT)

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
