# `make` lists the targets. Works with GNU and BSD make; `make PYTHON=python3.12 test` chooses the interpreter.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt

.PHONY: help venv dev demo test test-slow test-slurm test-nodes fuzz mutation lint check format docs wheel clean
.NOTPARALLEL:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

venv: $(VENV)/installed  ## make .venv and install quantbench there, once (about 2 GB)

dev: $(VENV)/installed-dev  ## the same with the tools for development

demo: venv  ## run the demo sweep
	$(BIN)/python -m quantbench +sweep=demo

test: dev  ## run the tests, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: dev  ## run the tests that take minutes, the longest first
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder tests/core/test_large_models.py tests

test-slurm: dev  ## run the tests on a real SLURM, which they install and start: as root, on Debian or Ubuntu; most wait, so four at a time
	$(BIN)/python -m pytest -n 4 --dist worksteal -m slurm tests/slurm

test-nodes: dev  ## run the tests on a SLURM of three nodes that share a simulated network file system: as root, on Debian or Ubuntu
	$(BIN)/python -m pytest -m nodes tests/nodes

fuzz: dev  ## try 10,000 command lines, option files and damaged files, and 200 in processes of their own (an hour or two)
	QUANTBENCH_FUZZ=10000 $(BIN)/python -m pytest --timeout=0 --hypothesis-show-statistics -p no:logging tests/fuzz

mutation: dev  ## change lines of the core that must not be wrong and see tests fail (minutes); see benchmarks/mutation.md
	$(INSTALL) -e ".[dev,mutation]"
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results

lint: dev  ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test  ## everything that must pass before a merge

format: dev  ## fix what ruff can fix, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/installed-docs  ## build the site of docs/ into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html, or: $(BIN)/python -m http.server --directory site"

wheel: dev  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove build products and tool caches; .venv/ and outputs/ stay
	rm -rf build dist site mutants .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +

# The stamps make each install happen once, and again when a dependency changes.
$(VENV)/installed: $(BIN)/pip pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-dev: $(BIN)/pip pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	touch $(VENV)/installed $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) -e ".[docs]"
	touch $@

# ensurepip writes pip last, so a half-made environment is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit("quantbench needs Python 3.11 or newer, not %s: make PYTHON=python3.11" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
