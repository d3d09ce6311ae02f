# make demo: the first run.  make test: the tests.  Both make the environment first.
PYTHON ?= .venv/bin/python
SIPO = $(PYTHON) -m sipo

.PHONY: setup demo check test test-slow lint types

# A stamp, so that a second call costs nothing; PYTHON=python3 uses packages that are there already.
setup: $(if $(filter .venv/bin/python,$(PYTHON)),.venv/.installed)

.venv/.installed: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --upgrade pip
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/.installed

demo: setup
	$(SIPO) train configs/demo.yaml
	$(SIPO) compare runs/demo --prompts miniature --num-prompts 260 --images-per-prompt 2

# What CI runs.
check: lint types test

# All cores, a thread each; a free worker takes over tests that others have waiting.
test: setup
	$(PYTHON) -m pytest -n auto --dist worksteal

test-slow: setup
	$(PYTHON) -m pytest -n auto --dist worksteal -m slow

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
