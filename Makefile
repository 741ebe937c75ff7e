# Each target sets up what it needs in .venv; nothing is installed elsewhere.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format board clean

demo: .venv/installed  ## Train three small models two ways, and compare them bit for bit
	$(BIN)/python experiments/train_two_ways.py --config configs/demo.yaml

test: .venv/installed  ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2

lint: .venv/installed  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/installed  ## Mend what the formatter can
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
