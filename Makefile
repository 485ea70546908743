# make demo    figures, tables and a report from real MNIST in minutes     -> results/demo/report.html
# make demo-cifar   the same from real CIFAR-10 and CIFAR-100              -> results/cifar-demo/report.html
# make test    all tests
# make paper   the whole study of config.yaml (hours)                      -> results/paper/report.html
# Each sets up .venv from requirements.lock first, if it is missing or out of date.

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cifar my-models paper figures status cost check test test-slow test-faults bench lint format lock schema docs clean missing
SHELL := /bin/sh

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
STAMP := .venv/.ready
PY := .venv/bin/python
SNAKEMAKE := $(PY) -m snakemake
ARGS ?=
STUDY ?=

help: ## show this list
	@echo "What does training with differential privacy do to robustness?"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## make .venv with the pinned packages (about 6 GB on Linux: torch with CUDA; README for a CPU build)

# Without its interpreter an environment is not ready, whatever the stamp says.
$(STAMP): requirements.lock $(if $(wildcard $(PY)),,missing)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 12))' 2>/dev/null || \
	  { echo "error: Python 3.11 is needed, found: $$("$(PYTHON)" --version 2>&1 | head -n 1); set PYTHON, for example: make $(or $(MAKECMDGOALS),demo) PYTHON=/usr/bin/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "error: this Python has no venv; on Debian or Ubuntu: apt install python3.11-venv" >&2; exit 1; }
	@echo "Setting up .venv: 105 packages, some minutes the first time (log: .venv/setup.log)"
	@[ ! -L .venv ] || rm .venv  # a link: what it leads to is another's to clear
	@"$(PYTHON)" -m venv --clear .venv
	@$(PY) -m pip install --disable-pip-version-check --progress-bar off -r requirements.lock > .venv/setup.log 2>&1 & pid=$$!; \
	  trap 'kill $$pid 2>/dev/null' INT TERM; seconds=0; \
	  while kill -0 $$pid 2>/dev/null; do sleep 1; seconds=$$((seconds + 1)); \
	    [ $$((seconds % 15)) -ne 0 ] || echo "  $$seconds s: $$(grep -E '^(Collecting|Downloading|Installing)' .venv/setup.log | tail -n 1 | cut -c 1-70)"; done; \
	  wait $$pid || { tail -n 5 .venv/setup.log >&2; echo "error: pip could not install requirements.lock; whole log: .venv/setup.log" >&2; exit 1; }
	@touch $@

demo: $(STAMP) ## real MNIST in minutes: every figure, few epochs
	@$(SNAKEMAKE) --configfile presets/demo.yaml $(ARGS)
	@[ ! -f results/demo/claims/claims.md ] || sed -n '/^Verdicts on/,$$p' results/demo/claims/claims.md
	@echo "Report: $(CURDIR)/results/demo/report.html"

demo-cifar: $(STAMP) ## real CIFAR-10 in minutes; where a mirror is needed: make demo-cifar ARGS=mirror.yaml
	@$(SNAKEMAKE) --configfile presets/cifar-demo.yaml $(ARGS)
	@echo "Report: $(CURDIR)/results/cifar-demo/report.html"

my-models: $(STAMP) ## compare networks trained elsewhere: presets/my-models.yaml
	@$(SNAKEMAKE) --configfile presets/my-models.yaml $(ARGS)
	@echo "Report: $(CURDIR)/results/my-models/report.html"

paper: $(STAMP) ## the whole study of config.yaml, five seeds (hours)
	@$(SNAKEMAKE) $(ARGS)
	@echo "Report: $(CURDIR)/results/paper/report.html"

figures: $(STAMP) ## the figures of the study of config.yaml
	@$(SNAKEMAKE) figures $(ARGS)

status: $(STAMP) ## what is trained, measured, missing; of another study: make status STUDY=presets/demo.yaml
	@$(PY) -m workflow.status progress $(STUDY)

cost: $(STAMP) ## hours and memory by stage, of what has run; STUDY as for status
	@$(PY) -m workflow.status cost $(STUDY)

check: $(STAMP) ## read every file of the study and say what is missing or damaged; STUDY as for status
	@$(PY) -m workflow.status check $(STUDY)

test: $(STAMP) ## all tests, with a smoke run of the whole workflow
	@$(PY) -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes: the law of the noise in billions of draws
	@$(PY) -m pytest -m slow $(ARGS)

test-faults: $(STAMP) ## kill, fill the disk, damage files: same bytes; under 20 minutes, parts of it as root
	@$(PY) -m pytest tests/faults $(ARGS)

bench: .venv/.bench ## speed against peers, 20 minutes on an idle machine; parts: make bench ARGS="steps attacks"
	@$(SNAKEMAKE) --quiet all -- data/mnist/train.npz data/mnist/test.npz data/mnist_c/pessimal.npz
	@$(PY) -m benchmarks $(ARGS)

.venv/.bench: requirements-bench.txt $(STAMP)
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-bench.txt
	@touch $@

lint: $(STAMP) ## ruff, snakefmt, snakemake --lint
	@$(PY) -m ruff format --check . && $(PY) -m ruff check .
	@$(PY) -m snakefmt --check Snakefile workflow/rules
	@$(SNAKEMAKE) --lint

format: $(STAMP) ## put code and rules into the house style
	@$(PY) -m ruff format . && $(PY) -m ruff check --fix .
	@$(PY) -m snakefmt Snakefile workflow/rules

lock: ## renew requirements.lock from requirements.in
	@rm -rf .venv-lock && "$(PYTHON)" -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet -r requirements.in
	@{ sed -n '/^#/p;/^[^#]/q' requirements.lock; \
	   .venv-lock/bin/python -m pip freeze --exclude pip | grep -v -i -E '^(nvidia|cuda|triton|setuptools)'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock && rm -rf .venv-lock

schema: $(STAMP) ## renew config.schema.json and docs/configuration.md from the typed settings
	@$(PY) -c 'from dprobust.schema import json_schema; print(json_schema(), end="")' > workflow/schemas/.new
	@mv workflow/schemas/.new workflow/schemas/config.schema.json
	@$(PY) -c 'from dprobust.reference import reference; print(reference(), end="")' > docs/.new
	@mv docs/.new docs/configuration.md

docs: .venv/.docs ## docs/ as pages, every link between them checked                          -> docs/_build/index.html
	@$(PY) -m sphinx --quiet --fail-on-warning -b html docs docs/_build
	@echo "Pages: $(CURDIR)/docs/_build/index.html"

.venv/.docs: requirements-docs.txt $(STAMP)
	@$(PY) -m pip install --disable-pip-version-check --quiet -r requirements-docs.txt
	@touch $@

clean: ## remove the results and the caches, keep the data and .venv
	@rm -rf results .snakemake .pytest_cache .ruff_cache
