# `make demo` and `make test` install everything they need into .venv; nothing but Python 3.11+ and make is required.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: help install demo test test-slow lint wheel audit clean

help:
	@echo "make demo       install, then train FCN and ANN on drawn scenes and compare them (runs/demo)"
	@echo "make test       install, then lint, types and tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make wheel      dist/*.whl, the same bytes from the same commit"
	@echo "make audit      known weaknesses of the pinned packages (pip-audit), and their licences"
	@echo "make clean      remove the virtual environment"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": run make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,all]' --constraint constraints.txt
	@# for the test of the Cityscapes score; without what else it asks for, such as an old copy of Python's own `typing`
	-$(BIN)/python -m pip install --quiet --no-deps cityscapesscripts pyquaternion --constraint constraints.txt
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/nonlocalseg demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -q -n auto -m 'not slow' --durations=15 --tb=short

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow -s

lint: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright --pythonpath $(BIN)/python

wheel: $(STAMP)
	umask 022 && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --wheel --no-isolation

audit: $(STAMP)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip
	$(BIN)/python -m benchmarks.licences

clean:
	rm -rf $(VENV)
