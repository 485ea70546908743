# make demo    figures, tables and a report from real MNIST in minutes     -> results/demo/report.html
# make demo-cifar   the same from real CIFAR-10 and CIFAR-100              -> results/cifar-demo/report.html
# make test    all tests
# make paper   the whole study of config.yaml (hours)                      -> results/paper/report.html
# Each sets up .venv from requirements.lock first, if it is missing or out of date.

.DEFAULT_GOAL := help
.PHONY: missing asked $(shell sed -n 's/^\([a-z-]*\):.*\#\#.*/\1/p' Makefile)
SHELL := /bin/sh

PYTHON_FROM := $(firstword $(origin PYTHON))
# The newest that runs and has venv, else the newest that runs (a shim of pyenv may be there and not run).
PYTHON ?= $(shell for with in 'import venv, ensurepip' ''; do for version in 3.13 3.12 3.11; do \
  python$$version -c "$$with" 2>/dev/null && command -v python$$version && exit; done; done; command -v python3 || echo python3)
TORCH ?=
STAMP := .venv/.ready
PY := .venv/bin/python
SNAKEMAKE := $(PY) -m snakemake
ARGS ?=
STUDY ?=

help: ## show this list
	@echo "What does training with differential privacy do to robustness?"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## make .venv with the pinned packages (about 6 GB on Linux); without CUDA: make setup TORCH=cpu

# Without its interpreter an environment is not ready, whatever the stamp says. Told which Python or torch, setup.py looks.
$(STAMP): requirements.lock $(if $(wildcard $(PY)),,missing) $(if $(TORCH)$(filter command environment,$(PYTHON_FROM)),asked)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
	  { echo "error: Python 3.11, 3.12 or 3.13 is needed, found: $$("$(PYTHON)" --version 2>&1 | head -n 1) ($(PYTHON)); set PYTHON, for example: make $(or $(firstword $(MAKECMDGOALS)),demo) PYTHON=/usr/bin/python3.12" >&2; exit 1; }
	@"$(PYTHON)" tools/setup.py "$(TORCH)" $(PYTHON_FROM)

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

# These take STUDY, the overlays of a study; without it the study is that of config.yaml.
figures: $(STAMP) ## all figures, tables and verdicts from what is published or there; nothing is trained
	@$(PY) -m workflow.publishing figures $(STUDY) $(ARGS)

restore: $(STAMP) ## bring published records into results/, for snakemake to go on with
	@$(PY) -m workflow.publishing restore $(STUDY)

publish: $(STAMP) ## put a finished study into published/, checked; of config.yaml README and docs tell it, too
	@$(PY) -m workflow.publishing publish $(STUDY) $(ARGS)
	@$(if $(STUDY),,$(PY) -m workflow.publishing readme)

readme: $(STAMP) ## write the generated parts of README and docs from what is published
	@$(PY) -m workflow.publishing readme

verify: $(STAMP) ## train and measure random parts of the published study again and compare: K=3 MINUTES=15 SEED=...
	@$(PY) -m workflow.publishing verify $(STUDY) -k $(or $(K),3) --minutes $(or $(MINUTES),15) $(if $(SEED),--seed $(SEED)) $(ARGS)

status: $(STAMP) ## what is trained, measured, missing; of another study: make status STUDY=presets/demo.yaml
	@$(PY) -m workflow.status progress $(STUDY)

cost: $(STAMP) ## hours and memory by stage, of what has run; STUDY as for status
	@$(PY) -m workflow.status cost $(STUDY)

crate: .venv/.crate ## describe the repository with the published study as an RO-Crate, validated (reads w3id.org)
	@$(PY) -m workflow.crate paper
	@.venv/bin/rocrate-validator -y validate -m -p workflow-run-crate .

.venv/.crate: requirements-crate.txt $(STAMP)
	@$(PY) -m pip install --disable-pip-version-check --quiet -c requirements.lock -r requirements-crate.txt
	@touch $@

check: $(STAMP) ## read every file of the study and say what is missing or damaged; STUDY as for status
	@$(PY) -m workflow.status check $(STUDY)

test: $(STAMP) ## all tests, with a smoke run of the whole workflow
	@$(PY) -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes: the law of the noise in billions of draws
	@$(PY) -m pytest -m slow $(ARGS)

test-slurm: .venv/.cluster ## the workflow on a real Slurm of one node, started for it: as root, where Slurm is installed
	@$(PY) -m pytest -m slurm tests/slurm $(ARGS)

cluster: .venv/.cluster ## add the executors for clusters to .venv: docs/clusters.md

.venv/.cluster: requirements-cluster.txt $(STAMP)
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-cluster.txt
	@touch $@

test-faults: $(STAMP) ## kill, fill the disk, damage files: the same bytes in the end; parts of it as root
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

lock: ## renew requirements.lock from requirements.in; pins that still fit stay, but for: make lock ARGS=--upgrade
	@rm -rf .venv-lock && "$(PYTHON)" -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --disable-pip-version-check --quiet uv
	@cp requirements.lock .venv-lock/all.lock
	@.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header \
	  $(ARGS) --output-file .venv-lock/all.lock requirements.in
	@{ sed -n '/^#/p;/^[^#]/q' requirements.lock; grep -v -E "^(nvidia|cuda|triton)|== 'win32'$$" .venv-lock/all.lock; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock && rm -rf .venv-lock

schema: $(STAMP) ## renew config.schema.json and docs/configuration.md from the typed settings
	@$(PY) -c 'from dprobust.schema import json_schema; print(json_schema(), end="")' > workflow/schemas/.new
	@mv workflow/schemas/.new workflow/schemas/config.schema.json
	@$(PY) -c 'from dprobust.reference import reference; print(reference(), end="")' > docs/.new
	@mv docs/.new docs/configuration.md

rulegraph: $(STAMP) ## draw the rules anew, docs/rulegraph.svg
	@$(PY) -m workflow.rulegraph

docs: .venv/.docs ## docs/ as pages, every link between them checked                          -> docs/_build/index.html
	@$(PY) -m sphinx --quiet --fail-on-warning -b html docs docs/_build
	@echo "Pages: $(CURDIR)/docs/_build/index.html"

.venv/.docs: requirements-docs.txt $(STAMP)
	@$(PY) -m pip install --disable-pip-version-check --quiet -r requirements-docs.txt
	@touch $@

clean: ## remove the results and the caches, keep the data and .venv
	@rm -rf results .snakemake .pytest_cache .ruff_cache
