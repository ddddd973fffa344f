# Everything a developer types. Stamps in .venv keep a second `make serve` from installing again.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= builtin
PORT ?= 8000
# First, so that pip does not choose: without a GPU you want a CPU build, a tenth of the size.
TORCH ?= torch==2.13.0
ARGS ?=
SEEDS ?= 10000
FIRST ?= 0
MINUTES ?= 30
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help setup serve chat lab test simulate simulate-mutants soak labs-soak lint check format wheel clean

help:
	@echo "make setup    a virtual environment in $(VENV) with Wheelpit in it"
	@echo "make serve    serve MODEL=$(MODEL) on PORT=$(PORT)"
	@echo "make chat     talk to it in the terminal"
	@echo "make lab      learn it: set up Lab 02 and print its first step"
	@echo "make test     run the tests (ARGS=\"-k stop\" for some)"
	@echo "make simulate SEEDS=$(SEEDS) FIRST=$(FIRST)    the whole engine in virtual time"
	@echo "make soak MINUTES=$(MINUTES)    all kinds of traffic and of faults, and nothing left behind"
	@echo "make check    format, lint, types and tests, as the CI does"
	@echo "make wheel    build a wheel into dist/"
	@echo
	@echo "TORCH=$(TORCH) chooses the build of torch, PYTHON=$(PYTHON) the interpreter."

setup: $(VENV)/.installed

serve: $(VENV)/.installed
	@exec $(BIN)/wheelpit serve $(MODEL) --port $(PORT)

chat: $(VENV)/.installed
	@exec $(BIN)/wheelpit chat --url http://127.0.0.1:$(PORT)

lab: $(VENV)/.lab-installed
	@echo "Lab 02, Online Serving with AsyncEngine, is in labs/lab02_online_serving. Next:"
	@echo
	@echo "  source $(BIN)/activate"
	@echo "  cd labs/lab02_online_serving"
	@echo "  python -m labkit.check              is this machine ready?"
	@echo "  python starter.py                   stops at the first TODO"
	@echo
	@echo "README.md there has the steps."

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest $(ARGS)

# Every answer to the labs 120 times, half of them on a busy machine (ARGS="--repeats 10").
labs-soak: $(VENV)/.test-installed
	$(BIN)/python labs/tests/labs_soak.py $(ARGS)

simulate: $(VENV)/.test-installed
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

simulate-mutants: $(VENV)/.test-installed
	$(BIN)/python -m tests.simulation.mutants

soak: $(VENV)/.test-installed
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

lint: $(VENV)/.lint-installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict src

check: lint test

format: $(VENV)/.lint-installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

wheel: $(VENV)/.test-installed
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	"Wheelpit needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing)." \
	"Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; } >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo \
	"$(PYTHON) -m venv failed: on Debian and Ubuntu, apt install python3-venv"; exit 1; } >&2
	@echo "Installing $(TORCH) into $(VENV)"
	@$(PIP_INSTALL) "$(TORCH)" || { echo \
	"$(TORCH) was not found for this Python: try make TORCH=torch"; exit 1; } >&2
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@echo "Installing Wheelpit into $(VENV)"
	@$(PIP_INSTALL) --editable .
	@# Else the first start would: it may as well be done now.
	@$(BIN)/python -c "from wheelpit.kernels.build import start_build; start_build().wait()"
	@touch $@

# These install Wheelpit as well, so they need not wait for it.
$(VENV)/.lab-installed: $(VENV)/.torch pyproject.toml labs/lab02_online_serving/requirements.txt
	@echo "Installing Wheelpit and what the labs need into $(VENV)"
	@$(PIP_INSTALL) --editable . "pytest>=8.4"
	@touch $(VENV)/.installed $@

$(VENV)/.test-installed: $(VENV)/.torch pyproject.toml
	@echo "Installing Wheelpit and what its tests need into $(VENV)"
	@$(PIP_INSTALL) --editable ".[test]"
	@touch $(VENV)/.installed $@

$(VENV)/.lint-installed: $(VENV)/.torch pyproject.toml
	@echo "Installing Wheelpit and the linters into $(VENV)"
	@$(PIP_INSTALL) --editable ".[lint]"
	@touch $(VENV)/.installed $@
