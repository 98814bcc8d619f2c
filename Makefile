# `make help` lists the targets. Each target makes .venv first if it is missing.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := $(VENV)/.installed-demo
# A worker for each CPU, each with about a GiB. `-n 0` in PYTEST_ARGS runs the tests in one process.
PYTEST      := $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz bindings packages lint format types docs slow kill soak clean
# Two targets must not install into .venv at once.
.NOTPARALLEL:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: $(STAMP)  ## make .venv and install retinart and its tools in it

# The tools of development include all that the demo needs.
demo: $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO))  ## checkpoint to ONNX to INT8, on real pictures; installs little
	$(BIN)/python -m retinart demo

test: $(STAMP)  ## run the tests
	$(PYTEST) $(PYTEST_ARGS)

MINUTES ?= 2
INPUTS  ?=
fuzz: $(STAMP)  ## damaged files of every format for some MINUTES=2, and a table of what each gave
	cd tests && ../$(BIN)/python -m fuzz --minutes $(MINUTES) $(INPUTS:%=--inputs %) --keep ../runs/fuzz

PYTHONS ?= python3.10 python3.11 python3.12 python3.13
packages: $(STAMP)  ## install wheel and sdist in empty environments of the PYTHONS that are here
	RETINART_PYTHONS="$(PYTHONS)" $(BIN)/pytest -rA -n 0 tests/test_packages.py

bindings: $(STAMP)  ## fetch TensorRT's Python bindings, for the contract test
	@.ci/bindings $(BIN)/python

slow: $(STAMP)  ## run the tests that take minutes: the pages' commands, the demo, public models' NMS
	$(PYTEST) -m slow $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## let ruff fix rules and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## mypy --strict over every Python file
	@.ci/types $(BIN)/mypy

N ?= 100
kill: $(STAMP)  ## kill commands at N random moments, and look at what they leave
	cd tests && ../$(BIN)/python -m fuzz.kill --num $(N)

FRAMES ?= 1000000
soak: $(STAMP)  ## a job over FRAMES frames: do memory, threads and open files grow?
	cd tests && ../$(BIN)/python -m fuzz.soak --frames $(FRAMES)

docs: $(STAMP)  ## build the documentation site in build/site; a broken link fails
	$(BIN)/python docs/build_site.py

clean:  ## remove .venv, build, caches, runs
	rm -rf $(VENV) build dist runs .cache tests/.hypothesis .hypothesis *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Touched last: a failed install is repeated, a good one is not.
$(STAMP): EXTRA := dev
$(DEMO): EXTRA := demo
$(DEMO): SAY := @echo "installs about 1.5 GB, which takes a minute or more"
$(STAMP) $(DEMO): pyproject.toml constraints.txt
	$(SAY)
	@.ci/venv "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRA)]"
	@touch $@
