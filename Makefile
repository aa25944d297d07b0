# The two commands: `make demo` (the main job on the embedded sample) and `make test`.
# Both set everything up first, in .venv.
#
#   make test-slow           the slow tests
#   make benchmark           the quick speed benchmarks, about two minutes; all of them: benchmarks/README.md
#   make docs                check the docs, run the notebooks, make the site in build/site
#   make wheel               build dist/, install the wheel into a fresh environment and run it there
#   make lowest              the same with the oldest versions that pyproject.toml allows
#
#   PYTHON=python3.13        the interpreter that environments are made from (3.11 or newer)
#   TORCH_BACKEND=cpu        choose a torch build (cpu, cu128, auto, …); empty: the registry's default,
#                            which is the CUDA build on Linux and MPS on a Mac
#   ROOT=workspace           where `make demo` writes
#   DOWNLOAD=1               let `make demo` fetch the weights that its metrics lack
PYTHON ?= python3
TORCH_BACKEND ?=
ROOT ?= workspace
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TOOLS := $(VENV)/.tools
TESTED := --constraint constraints.txt
EVERYTHING := --editable ".[all,dev]"

export ORT_DISABLE_TELEMETRY := 1

.PHONY: setup demo test test-slow lint format docs wheel lowest benchmark clean

# Make the environment $(1) and install $(2) into it.
define install
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ffhqref needs Python 3.11 or newer: make PYTHON=python3.13")'
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet "uv>=0.8"
	$(1)/bin/uv pip install --python $(1)/bin/python --quiet --compile-bytecode \
	  $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)") \
	  $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) $(2)
endef

# Run the quick experiment with what is installed in $(1), where no checkout is in sight.
define try
	cd $(1) && bin/ffhqref run experiment=quick
endef

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt overrides.txt
	@echo "set-up: installing the pinned packages into $(VENV), some minutes the first time"
	$(call install,$(VENV),$(TESTED) --override overrides.txt $(EVERYTHING))
	@touch $@

# What only tests and the site need; the hub's datasets is dropped above for pyiqa's sake, which does without.
$(TOOLS): $(STAMP)
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode $(TESTED) --editable ".[docs,hub,trackers]"
	@touch $@

demo: setup
	$(BIN)/ffhqref run root=$(ROOT)$(if $(DOWNLOAD), download=true)
	@$(if $(DOWNLOAD),,echo "the weights of LPIPS and MUSIQ, sizes and licences above, come with: make demo DOWNLOAD=1")
	@echo "next: $(BIN)/ffhqref --help, $(BIN)/ffhqref list; run again it does nothing: $(BIN)/ffhqref run root=$(ROOT)"

test: setup $(TOOLS) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: setup $(TOOLS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup $(TOOLS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/test_docs.py tests/net/test_library_page.py
	$(BIN)/mkdocs build --quiet --site-dir build/site
	@echo "docs: build/site/index.html"

wheel: setup
	rm -rf dist build/wheel
	$(BIN)/python -m build
	$(call install,build/wheel,$(TESTED) dist/*.whl)
	$(call try,build/wheel)

lowest:
	rm -rf build/lowest
	$(call install,build/lowest,--resolution lowest-direct .)
	$(call try,build/lowest)

benchmark: setup
	$(BIN)/python benchmarks/startup.py --repeats 3
	$(BIN)/python benchmarks/degradation.py --images 10 --repeats 2
	$(BIN)/python benchmarks/pairs.py --images 10000 --sizes
	$(BIN)/python benchmarks/scoring.py --cases 4 --methods 2

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
