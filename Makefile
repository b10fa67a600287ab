# `make train` and `make test` install what they need; only Python 3.11 or newer must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What training needs, and what the tests and checks need beyond it (export formats, pytest, mypy …).
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: train test test-slow test-gpu check clean

train: $(READY)
	$(BIN)/yolo train --data shapes --cfg n --hyp shapes --optimizer AdamW --img 160 --batch 16 --epochs 30

# One thread per worker: there are as many workers as cores.
# worksteal moves waiting tests to workers that have none left.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

test: $(READY_DEV)
	$(PYTEST) -m 'not slow and not gpu'

test-slow: $(READY_DEV)
	$(PYTEST) -m slow

# On a machine with a CUDA GPU, one test after another.
test-gpu: $(READY_DEV)
	$(BIN)/python -m pytest -q -m gpu tests/gpu

check: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/lint-imports

# uv installs in seconds what takes pip minutes.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/uv pip install --quiet -e .
	touch $@

$(READY_DEV): $(READY)
	VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/uv pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
