# `make study` and `make test` are all there is to know; both install what they need into .venv.
SHELL := bash
PYTHON ?= python3
STUDY ?= notebooks/demo.yaml
LAB ?=
YOLOV5 ?=
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help study test test-browser lint bench lab strip constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

study: $(READY)  ## run the whole study: data, every solution and seed, comparison, analysis
	@$(BIN)/python -m gradlib study $(STUDY)

test: $(READY)  ## run all tests (one thread a process: the processes share the cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-browser: $(READY)  ## run the notebooks in a real JupyterLab and use them (needs Chromium; some minutes)
	@$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[browser]'
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/browser

lint: $(READY)  ## check style, format and imports, and that notebooks carry no outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python -m pytest -q tests/test_setup.py

bench: $(READY)  ## time GradNorm and an epoch beside other implementations (quiet machine, some minutes)
	@$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[bench]'
	@$(BIN)/pip install --disable-pip-version-check --quiet --no-deps 'LibMTL==1.1.5'
	@$(BIN)/python benchmarks/balancing.py
	@$(BIN)/python benchmarks/step.py
	@$(BIN)/python benchmarks/epoch.py $(if $(YOLOV5),--yolov5 $(YOLOV5))

lab: $(READY)  ## open JupyterLab on the first notebook (as root: make lab LAB=--allow-root)
	@$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_data.ipynb $(LAB)

strip: $(READY)  ## remove outputs and execution counts from the notebooks
	@$(BIN)/jupyter nbconvert --log-level=WARN --clear-output --inplace notebooks/*.ipynb

constraints:  ## renew constraints.txt: the newest versions that pyproject.toml allows
	@$(PYTHON) -m venv --clear .venv/renew
	@.venv/renew/bin/pip install --quiet -e '.[dev,browser]'
	@{ grep '^#' constraints.txt; .venv/renew/bin/pip freeze --exclude-editable | sed 's/+.*//' | LC_ALL=C sort -f; } > .venv/constraints.txt
	@mv .venv/constraints.txt constraints.txt && rm -rf .venv/renew

clean:  ## remove .venv and caches (runs/ and data/ stay)
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis gradlib.egg-info
	@find gradlib tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Made when .venv is missing, and again whenever the dependencies change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"gradlib needs Python 3.11 or newer, $(PYTHON) is {v}: make PYTHON=python3.12 ...")'
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo 'Installing into .venv (some minutes the first time)'
	@set -o pipefail; $(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' \
	  | awk '/Downloading.*[MG]B|^(Building|Installing|ERROR)/ {print "  " substr($$0, 1, 96); fflush()}'
	@touch $@
