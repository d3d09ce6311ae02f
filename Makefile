# make demo: the first run.  make test: the tests.  Both make the environment first.
PYTHON ?= .venv/bin/python
SIPO = $(PYTHON) -m sipo

FAKE = .venv-fake-cuda

.PHONY: setup demo demo-flow demo-video check test test-slow test-annotate test-fake-cuda benchmark-annotate services lint types

# A stamp, so that a second call costs nothing; PYTHON=python3 uses packages that are there already.
setup: $(if $(filter .venv/bin/python,$(PYTHON)),.venv/.installed)

.venv/.installed: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --upgrade pip
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/.installed

demo: setup
	$(SIPO) train configs/demo.yaml
	$(SIPO) compare runs/demo --prompts miniature --num-prompts 240

demo-flow: setup
	$(SIPO) train configs/demo-flow.yaml
	$(SIPO) compare runs/demo-flow --prompts miniature-flow --num-prompts 240

demo-video: setup
	$(SIPO) train configs/demo-video.yaml
	$(SIPO) compare runs/demo-video --prompts miniature-video --num-prompts 240

# What CI runs.
check: lint types test test-annotate

# All cores, a thread each; a free worker takes over tests that others have waiting.
test: setup
	$(PYTHON) -m pytest -n auto --dist worksteal

test-slow: setup
	$(PYTHON) -m pytest -n auto --dist worksteal -m slow

# All pages in a real browser, votes in a real PostgreSQL.
test-annotate: setup services
	$(PYTHON) -m pytest -m services tests/annotate tests/evaluate/pages

# Devices, dtypes and waits of a training step, without a GPU: a CUDA build of torch (6 GB), and a driver that does nothing.
test-fake-cuda: $(FAKE)/libcuda.so.1
	LD_PRELOAD=$(abspath $<) $(FAKE)/bin/python -m pytest -m fake_cuda tests/train/test_fake_cuda.py

$(FAKE)/libcuda.so.1: tests/support/fake_cuda.c $(FAKE)/.installed
	$(CC) -shared -fPIC -Wl,-soname,libcuda.so.1 -o $@ $<

$(FAKE)/.installed: pyproject.toml constraints-fake-cuda.txt
	python3 -m venv $(FAKE)
	$(FAKE)/bin/pip install --quiet --constraint constraints-fake-cuda.txt --editable . pytest hypothesis
	touch $@

# Votes a second over HTTP, each synced to disk.
benchmark-annotate: setup
	PYTHONPATH=tests $(PYTHON) -m support.load

# Debian's packages, where they are missing; elsewhere install them by hand.
services:
	@command -v chromium >/dev/null && { command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 \
	|| { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium postgresql; }

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
