# Everything runs from .venv, which `setup` makes from pyproject.toml and the pinned versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: help setup demo test test-gpu lint format types bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make the environment

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench,eval,dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## ask about real video files with and without EarlyTom; VIDEO=file.mp4 QUESTION="..." for yours
	$(BIN)/earlytom demo $(if $(VIDEO),"$(VIDEO)") $(if $(QUESTION),"$(QUESTION)")

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -m "not gpu"

test-gpu: $(STAMP)  ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: $(STAMP)  ## check style and the order of dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## check types
	$(BIN)/mypy

bench: $(STAMP)  ## measure the encoder at true sizes (long; see benchmarks/README.md)
	$(BIN)/python benchmarks/encoder.py --output benchmarks/results/encoder_cpu.json
