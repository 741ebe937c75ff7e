# Each target sets up what it needs in .venv; nothing is installed elsewhere.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long test-slow test-other-processor test-all lint format board clean
.NOTPARALLEL:

demo: .venv/installed  ## Train three small models two ways, and compare them bit for bit
	$(BIN)/python experiments/train_two_ways.py --config configs/demo.yaml

# Two processes share the tests: each begins with one half of them, and takes over from the other at the end.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: .venv/installed  ## Run the tests, one of every kind
	$(PYTEST) -m "not long"

test-long: export KILLS ?= 8
test-long: export GRADPARITY_FUZZ ?= 100
# Three: many of these wait for processes of their own.
test-long: .venv/installed  ## Run others: more instances, kills and spoiled files, and what takes long
	$(PYTEST) --numprocesses 3 -m "(long or many) and not slow" --hypothesis-seed=0

test-slow: .venv/installed  ## Run the rest: every fault and every loop against the whole dictionary
	$(PYTEST) -m slow

# PyTorch, oneDNN and MKL take the instructions of an older processor, with which sums round otherwise. What Inductor
# compiles does not build with PyTorch's.
test-other-processor: export ATEN_CPU_CAPABILITY := default
test-other-processor: export ONEDNN_MAX_CPU_ISA := AVX2
test-other-processor: export MKL_CBWR := COMPATIBLE
test-other-processor: .venv/installed  ## Run the tests whose numbers could depend on the processor, as if on another one
	$(PYTEST) -m "processor and not long" -k "not compile"

test-all: test test-long test-slow test-other-processor  ## Run everything

lint: .venv/installed  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/installed  ## Fix what the formatter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

board: .venv/installed  ## Open TensorBoard on all runs, on this machine only
	$(BIN)/tensorboard --logdir runs --host localhost

clean:  ## Remove the environment; runs stay
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv: some minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
