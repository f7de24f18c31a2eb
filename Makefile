# Set-up in two commands: `make demo` and `make test`. Re-running installs nothing
# again: a stamp in the environment is newer than the files that name what it needs.
PYTHON ?= python3
VENV ?= .venv
RUNTIME_VENV ?= .venv-runtime
DEMO_OUTPUT ?= demo-output
BIN := $(VENV)/bin
NEEDS := pyproject.toml constraints.txt
PIP := pip install --quiet --disable-pip-version-check
SOURCES := pyimgano exporters runtime tests benchmarks docs bundles

.PHONY: help demo test test-runtime test-all test-timm mutants check check-style format wheelhouse clean

help:
	@echo "make demo      train, export, run without torch; open $(DEMO_OUTPUT)/overview.html"
	@echo "make test      the default tests, and the runtime's in an environment without torch"
	@echo "make check     format, lint, types and the fast tests"
	@echo "make test-all  also the slow, browser and real-data tests"
	@echo "make mutants   breaks the code on purpose and shows that a test catches each"
	@echo "make wheelhouse  wheels of the runtime and its needs, for devices without internet"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(NEEDS)
	$(BIN)/$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed $(NEEDS)
	$(BIN)/$(PIP) -c constraints.txt -e ".[test]"
	@touch $@

# Only the runtime, its two needs and pytest: no torch, click or cv2.
$(RUNTIME_VENV)/.installed-test: runtime/pyproject.toml constraints.txt \
		$(shell find runtime/src -name '*.py')
	$(PYTHON) -m venv $(RUNTIME_VENV)
	$(RUNTIME_VENV)/bin/$(PIP) -c constraints.txt "./runtime[test]"
	$(RUNTIME_VENV)/bin/$(PIP) --no-deps --force-reinstall ./runtime
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/pyimgano demo --output $(DEMO_OUTPUT) --force

# Two processes at least: tests use one thread each. One file stays in one process,
# because its tests share what they train.
test: $(VENV)/.installed-test test-runtime
	$(BIN)/python -m pytest -n auto --dist loadfile

test-runtime: $(RUNTIME_VENV)/.installed-test
	cd runtime && ../$(RUNTIME_VENV)/bin/python -m pytest

test-all: test
	$(BIN)/python -m pytest -m "slow or realdata or browser or bench or fuzz"

test-timm:
	$(PYTHON) -m venv .venv-timm
	.venv-timm/bin/$(PIP) "torch==2.14.1" "torchvision==0.29.1"
	.venv-timm/bin/$(PIP) -e ".[test,timm]"
	.venv-timm/bin/python -m pytest -m timm

mutants: $(VENV)/.installed-test
	$(BIN)/python tests/mutants.py

check-style: $(VENV)/.installed-test
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

check: check-style
	$(BIN)/python -m pytest -x -q

format: $(VENV)/.installed-test
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

wheelhouse: $(BIN)/python
	$(BIN)/pip wheel --quiet -c constraints.txt --wheel-dir wheelhouse "./runtime[images]"

clean:
	rm -rf $(VENV) $(RUNTIME_VENV) .venv-timm build dist wheelhouse $(DEMO_OUTPUT)
