# `make train` trains on the corpus in data/demo, `make test` runs the tests; both set up .venv.
# `make train ARGS="generator=hifigan_v2 trainer.max_steps=100"` passes on overrides.

PYTHON ?= python3
EXTRAS ?= test
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test lint docs benchmark clean

train: $(VENV)/installed
	$(BIN)/python -m vocoder.train experiment=demo $(ARGS)

test: $(VENV)/installed-$(EXTRAS)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(VENV)/installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

benchmark: $(VENV)/installed
	$(BIN)/python scripts/benchmark.py $(ARGS)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-%: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist
