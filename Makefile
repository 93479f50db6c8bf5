# What a newcomer and CI type. Every target brings what it needs: Debian's libraries
# (deploy/native.sh), a virtual environment with the tested versions (constraints.txt), the
# compiled extensions. Stamps keep a second run fast.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

MODULES := $(sort $(wildcard fastpath/*.pyx bench/*.pyx))
NATIVE_SOURCES := $(MODULES) $(wildcard fastpath/*.pxd fastpath/c/*.pxd fastpath/*.h bench/*.pxd bench/*.h)
PROTOS := $(wildcard protos/*/*.proto protos/*/*/*.proto protos/*.proto)

# Files stay whole: servers and bundles are made once per file.
# What of pip's talk says that it goes on; errors go to stderr by themselves.
PIP_LINES := sed -unE '/^ *(Collecting|Downloading|Installing collected|Successfully installed)/p'

PYTEST_ARGS ?= -n 2 --dist loadfile
DEMO_SECONDS ?=
DEMO_ARGS ?=
DATA ?=
STORE ?=
DRIFT ?=
EXPLORE ?=
PROMETHEUS ?=
BENCH_ARGS ?=
PROFILE_ARGS ?=

.PHONY: help demo test lint bench bench-quick profile build protos clean native native-redis native-prometheus native-test

help: ## show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

demo: build $(if $(filter redis,$(STORE)),native-redis) $(if $(PROMETHEUS),native-prometheus) ## train, export, serve and replay until Ctrl-C (DRIFT=amount, EXPLORE=0.05, PROMETHEUS=1, STORE=redis, DATA=file.parquet, DEMO_SECONDS=20)
	@exec $(BIN)/python -m server demo $(if $(STORE),--store "$(STORE)") \
	    $(if $(DATA),--data "$(DATA)") \
	    $(if $(DRIFT),--drift "$(DRIFT)") $(if $(EXPLORE),--explore "$(EXPLORE)") $(if $(PROMETHEUS),--prometheus) \
	    $(if $(DEMO_SECONDS),--seconds "$(DEMO_SECONDS)") $(DEMO_ARGS)

test: lint ## lint, types and all tests (PYTEST_ARGS="-k routing")
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: native-test build ## style, types, generated code, stubs
	@echo "ruff"; $(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@echo "cython-lint"; PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint fastpath bench
	@echo "codespell"; $(BIN)/codespell
	@echo "generated code"; $(BIN)/python protos/generate.py --check
	@echo "mypy"; $(BIN)/mypy
	@echo "stubtest"; $(BIN)/python -m mypy.stubtest --concise --ignore-disjoint-bases \
	    --allowlist tests/typing/stubtest_allowlist.txt --ignore-unused-allowlist \
	    $(subst /,.,$(MODULES:.pyx=))

bench: native-test build ## measure everything there is, and write bench/results/*.json
	@$(BIN)/python -m bench $(BENCH_ARGS)

bench-quick: native-test build ## the same in under three minutes, into bench/results/quick
	@$(BIN)/python -m bench --quick $(BENCH_ARGS)

profile: native-test build ## instructions per call and flame graphs (needs valgrind and linux-perf)
	@$(BIN)/python -m bench.profile $(PROFILE_ARGS)

build: build/.extensions ## the virtual environment and the compiled extensions

feast-env: ## an environment with Feast, for the tests of its adapter (some 600 MB)
	@"$(PYTHON)" -m venv var/feast
	@var/feast/bin/python -m pip install 'feast[redis]==0.67.*' lmdb click msgspec rich | $(PIP_LINES)

protos: $(VENV)/.installed ## regenerate server/pb from protos/
	@$(BIN)/python protos/generate.py

clean: ## remove what was built and the demo's files; .venv stays
	@rm -rf build dist var ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -f fastpath/*.so fastpath/*.c fastpath/*.html bench/*.so bench/*.c bench/*.html
	@find server fastpath tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

native:
	@PYTHON="$(PYTHON)" deploy/native.sh build

native-redis:
	@PYTHON="$(PYTHON)" deploy/native.sh redis

native-prometheus:
	@PYTHON="$(PYTHON)" deploy/native.sh prometheus

native-test:
	@PYTHON="$(PYTHON)" deploy/native.sh test

# Order-only: looked at each time, which is quick, without making what depends on it old.
$(VENV)/.created: | native
	@command -v "$(PYTHON)" >/dev/null || { echo "make: there is no $(PYTHON)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1); Scoregate needs Python 3.11 or newer:" \
	         "make PYTHON=python3.11" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" -V)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

# FASTPATH_ONLY names no module: pip installs, the next rule compiles, in parallel and visibly.
# PYTHONWARNINGS: setuptools warns of every editable installation.
$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.created
	@echo "Installing Python packages (some 400 MB the first time)"
	@$(BIN)/python -m pip install -c constraints.txt setuptools cython | $(PIP_LINES)
	@FASTPATH_ONLY=none PYTHONWARNINGS=ignore $(BIN)/python -m pip install -c constraints.txt \
	    --no-build-isolation -e '.[train,features,bench,dev]' | $(PIP_LINES)
	@touch $@

build/.extensions: setup.py $(NATIVE_SOURCES) $(VENV)/.installed | native
	@echo "Compiling $(words $(MODULES)) modules of fastpath and bench"
	@$(BIN)/python setup.py -q build_ext --inplace --parallel 2
	@mkdir -p build && touch $@
