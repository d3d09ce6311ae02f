# make demo: the first run.  make test: the tests.  Both make the environment first.
PYTHON ?= .venv/bin/python
SIPO = $(PYTHON) -m sipo

.PHONY: setup demo test test-slow test-deepspeed lint types

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

test: setup
	$(PYTHON) -m pytest

test-slow: setup
	$(PYTHON) -m pytest -m slow

# In an environment of its own: with deepspeed installed, the other tests would run beside it too.
# DS_BUILD_OPS=0 builds nothing at install; on a CPU DeepSpeed compiles one small operator when it first runs (g++).
test-deepspeed: .venv-deepspeed/.installed
	DS_ACCELERATOR=cpu .venv-deepspeed/bin/python -m pytest -m deepspeed tests/train/test_zero.py

.venv-deepspeed/.installed: pyproject.toml constraints.txt
	python3 -m venv .venv-deepspeed
	.venv-deepspeed/bin/pip install --quiet --upgrade pip
	DS_BUILD_OPS=0 .venv-deepspeed/bin/pip install --quiet --constraint constraints.txt --editable '.[dev,deepspeed]'
	touch .venv-deepspeed/.installed

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
