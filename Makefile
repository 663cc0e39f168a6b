# Every target does its own set-up in .venv; no environment needs to be active.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Slow files first, as tests/machine.py orders them. Python must keep what it compiles, or each process does it again.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv quickstart ablation benchmark benchmark-methods test test-all checks fuzz docs docs-serve docs-refresh format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

venv: $(VENV)/.installed-dev ## set up .venv for development

quickstart: $(VENV)/.installed ## compare a linear probe and LoRA with zero-shot on synthetic images: a minute after the set-up, offline
	$(BIN)/clip-har quickstart --out quickstart

test: checks ## check format, lint and types, then run the tests that are not marked slow
	$(PYTEST) --hardware-bfloat16=no -m "not slow and not fuzz"
	$(PYTEST) --hardware-bfloat16=yes --only-asked -m "not slow and not fuzz"

test-all: checks ## the same with the slow tests, which also kill and damage trainings: what continuous integration runs
	$(PYTEST) --hardware-bfloat16=no
	$(PYTEST) --hardware-bfloat16=yes --only-asked

checks: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(VENV)/.installed-dev ## read thousands of damaged images and data files: a few minutes
	$(BIN)/pytest -m fuzz

benchmark: $(VENV)/.installed-dev ## compare speed and memory with plain loops, on an idle machine: 18 minutes on two cores with AMX, 44 with AVX2, offline
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/render.py

ablation: $(VENV)/.installed ## measure what each choice is worth that differs from the predecessor, on synthetic images: some minutes, offline
	$(BIN)/python benchmarks/ablations.py --seeds 0
	$(BIN)/python benchmarks/ablations.py --tables

benchmark-methods: $(VENV)/.installed ## compare the methods of docs/results.md on its synthetic images, offline
	$(BIN)/clip-har quickstart --methods zero-shot,linear-probe,lora,lora-embedding,lora-attention,lora-all,full,two-tier,augmented,lp-ft,wise-ft,coop,clip-adapter,tip-adapter,tip-adapter-f --out benchmark-methods

docs: $(VENV)/.installed-dev ## build the documentation into site/, with broken links as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.installed-dev ## show the documentation at http://127.0.0.1:8000 while pages are edited
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

docs-refresh: $(VENV)/.installed-dev ## write generated tables and outputs of commands in the documentation again: some minutes
	$(BIN)/python scripts/refresh_docs.py

format: $(VENV)/.installed-dev ## format the code and apply the linter's fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the output of quickstart and the tools, but keep .venv
	rm -rf quickstart ablations benchmark-methods build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "clip-har needs Python 3.10 or later, and '$(PYTHON)' is not. Pass one: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create a virtual environment. On Debian or Ubuntu: sudo apt install python3-venv" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing clip-har into $(VENV), once: about two minutes of download (6 GB on disk)."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing clip-har and its development tools into $(VENV), once: about two minutes of download (6 GB on disk)."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.installed $@
