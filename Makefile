# `make train` and `make test` do their own set-up; only Python ≥ 3.11 has to be here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: train test check clean

# Loader processes share the cores with torch's threads; threads that spin while they wait would hold them up.
train: $(READY)
	GOMP_SPINCOUNT=10000 $(BIN)/yolo train --data shapes --cfg n --hyp shapes --optimizer AdamW --img 160 --batch 16 --epochs 30

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto  # one thread a worker: two that share a core wait for each other

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/lint-imports

# uv installs in seconds where pip takes minutes; pip alone brings uv.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/uv pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
