# Needs Python 3.11 or newer, git and make; the rest is set up by whatever target wants it, and only when it changed.
SHELL := bash
.DEFAULT_GOAL := help

# The Python that environments are made with: make test PYTHON=python3.12
PYTHON ?= python3
# What `make matrix` runs on: make matrix AIRFLOW=2.11; also: lowest, newest
AIRFLOW ?= 2.11 3.0 3.1 3.2

# Which benchmarks `make bench` runs: make bench PARTS=page
PARTS ?= parse message batch plan guards page polls speed arms

# More for pytest, or for the run of workers: make test ARGS='-k ledger', make distributed ARGS='--messages 60'
ARGS ?=
# Which tests share a process: tests/support/workers.py.
SHARED := --dist=loadscope --no-loadscope-reorder

export PYTHON
# A developer's own Airflow (its database, its connections) is no part of these runs, nor are packages from elsewhere. And
# where no bytecode may be written, every process compiles Airflow anew, for more than two seconds.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE $(filter AIRFLOW_%,$(.VARIABLES))

.PHONY: help setup demo quick test lint types docs screenshots matrix chaos distributed mutation bench format pins release-check clean
help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

setup: ## make .venv: the newest Airflow, this provider, all tools
	@.ci/venv .venv .ci/pins/airflow-3.3.txt "$(PYTHON)"

demo: setup ## text the 40 clients of the sandbox, call those who do not answer, and show who got what
	@.ci/demo

quick: setup ## run the tests that need no Airflow and no other process, in seconds
	.venv/bin/python -m pytest $(SHARED) --numprocesses=auto -p tests.support.without_airflow -p no:anyio \
	    -m 'not postgresql and not processes' tests/unit $(ARGS)

test: setup ## run all tests on the newest Airflow
	.venv/bin/python -m pytest $(SHARED) --numprocesses=3 $(ARGS)

lint: setup ## check style, spelling and workflows
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/codespell
	.venv/bin/zizmor --offline --quiet --persona=auditor .github

types: setup ## check types
	.venv/bin/mypy

docs: setup ## build the documentation into docs/_build/html, and check links; a warning is an error
	@rm -rf docs/_build/html
	.venv/bin/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html
	.venv/bin/python -m tests.support.links docs/_build/html

screenshots: setup ## take the pictures and draw the diagrams of the documentation anew (needs Chromium)
	.venv/bin/python -m tests.browser.screenshots
	.venv/bin/python docs/diagrams.py
	.venv/bin/python docs/demo.py

matrix: $(AIRFLOW:%=matrix-%) ## run the contract tests on the older Airflows (or one: AIRFLOW=2.11)

matrix-%:
	@.ci/matrix $*

chaos: setup ## kill workers and break the server under 1,000 sends a store, and check every promise
	.venv/bin/python -m tests.chaos

distributed: ## send from two Celery workers, kill one of them and PostgreSQL, and check every promise
	@.ci/venv .ci/venv-distributed .ci/pins/distributed.txt "$(PYTHON)"
	@.ci/venv-distributed/bin/python -m tests.distributed $(ARGS)

mutation: setup ## change the outbox and the batch in small ways, and list the changes that no test notices
	.venv/bin/python -m tests.support.mutation

bench: ## print what the provider costs: import, message, batch, plan, page, polls, and a batch beside other ways to send
	@.ci/venv .ci/venv-bench .ci/pins/bench.txt "$(PYTHON)"
	@for part in $(PARTS); do .ci/venv-bench/bin/python -m benchmarks $$part || exit; done

format: setup ## fix style
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

pins: ## resolve .ci/pins/*.txt anew
	@.ci/pin

release-check: setup ## build the wheel and the sdist into dist/, and check all that a release promises
	@.ci/release-check

clean: ## remove all that was made here
	rm -rf .venv .ci/venv-* .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist mutants docs/_build
	find . -name __pycache__ -prune -exec rm -rf {} +
