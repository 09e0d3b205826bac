# Everything runs from .venv, which `setup` makes from pyproject.toml and the pinned versions in constraints.txt; only
# test-newest and test-oldest have environments of their own. Remove one to have it made anew.
PYTHON ?= python3
TESTS ?= tests
BIN := .venv/bin
STAMP := .venv/.ready
NEWEST := .venv-newest/.ready
OLDEST := .venv-oldest/.ready

.PHONY: help setup demo test test-newest test-oldest test-gpu lint format types bench bench-gpu fuzz

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make the environment

$(STAMP): constraints.txt
$(STAMP): PACKAGES = --constraint constraints.txt --editable '.[bench,eval,dev]'
$(NEWEST): PACKAGES = --editable '.[bench,eval,test]'
$(OLDEST): constraints-oldest.txt
$(OLDEST): PACKAGES = --constraint constraints-oldest.txt --editable '.[bench,eval,test]'

$(STAMP) $(NEWEST) $(OLDEST): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@

demo: $(STAMP)  ## ask about real video files with and without EarlyTom; VIDEO=file.mp4 QUESTION="..." for yours
	$(BIN)/earlytom demo $(if $(VIDEO),"$(VIDEO)") $(if $(QUESTION),"$(QUESTION)")

test: $(STAMP)  ## run the tests; TESTS=folder for some of them, here and in the next two
	$(BIN)/python -m pytest -m "not gpu" $(TESTS)

test-newest: $(NEWEST)  ## run the tests with the newest releases of what this needs
	.venv-newest/bin/python -m pytest -m "not gpu" $(TESTS)

test-oldest: $(OLDEST)  ## run the tests with the oldest releases that pyproject.toml allows
	.venv-oldest/bin/python -m pytest -m "not gpu" $(TESTS)

test-gpu: $(STAMP)  ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

fuzz: $(STAMP)  ## try damaged videos and folders for 4 minutes; FUZZ="--seconds 60 --seed 1", FUZZ=--help for more
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

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

# With PYTHON=... that interpreter is taken as it is: a machine with a GPU may have neither a network nor all packages.
GIVEN := $(filter command environment,$(firstword $(origin PYTHON)))

bench-gpu: $(if $(GIVEN),,$(STAMP))  ## all that needs a GPU, in under 8 minutes, into benchmarks/results/gpu; PYTHON=... or .venv
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) benchmarks/gpu.py --output benchmarks/results/gpu $(GPU)
