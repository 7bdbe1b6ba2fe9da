# Everything a person types. `make demo` and `make test` work on a fresh machine.
.DEFAULT_GOAL := help
PY := .venv/bin/python

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/.ready ## install everything into .venv (2.8 GB download)
.venv/.ready: requirements.txt pyproject.toml tools/set-up.sh
	@PYTHON="$(PYTHON)" sh tools/set-up.sh

demo: .venv/.ready ## train a healthy and a collapsed SimSiam on the embedded data set; about 6 minutes on two cores
	@$(PY) -m stopgrad.cli.demo

test: .venv/.ready ## the tests, without those that train for minutes
	@$(PY) -m pytest

test-slow: .venv/.ready ## the tests that train for minutes or need many seeds
	@$(PY) -m pytest -m slow

bench: .bench/.ready ## measure beside the rivals, for more than an hour; writes tables under benchmarks/results
	@.bench/bin/python -m benchmarks.run
.bench/.ready: .venv/.ready benchmarks/requirements.txt tools/bench-env.sh
	@sh tools/bench-env.sh

bench-faults: .venv/.ready ## kill, signal, damage and starve runs, half an hour; writes the table of docs/reliability.md
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.faults

studies: .venv/.ready ## the papers' studies, a minute a run and three hours together; goes on where it was stopped
	@$(PY) -m stopgrad study all --pages docs/studies

check: .venv/.ready ## formatting, lint, types
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy

lock: ## renew requirements.txt from pyproject.toml (needs a registry)
	.tools/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --upgrade \
	    --python-version 3.11 --extra dev pyproject.toml -o requirements.txt
	.tools/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --upgrade \
	    --python-version 3.11 benchmarks/requirements.in -o benchmarks/requirements.txt

clean: ## remove what set-up and the demo made
	rm -rf .venv .bench .tools runs/demo runs/demo-collapsed runs/demo-report.html

.PHONY: help setup demo test test-slow bench bench-faults studies check lock clean
