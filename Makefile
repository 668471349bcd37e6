# `make help` lists what there is. Everything runs in a virtual environment of its own.

port ?= 8080
minutes ?= 5
PYTHON ?= python3
VENV ?= .venv

export PORT = $(port)
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help dev test lint format bench soak clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

dev: $(VENV)/ready ## Run the service on port=8080, in memory, reloading on change
	@VENV=$(VENV) exec scripts/dev

test: $(VENV)/ready ## Run every test
	$(VENV)/bin/python -m pytest

lint: $(VENV)/ready ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/ready ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/ready ## Compare with other stacks; ARGS='--workloads get'; needs wrk
	@PYTHON=$(VENV)/bin/python scripts/bench/prepare
	@$(VENV)/bin/python scripts/bench $(ARGS)

soak: $(VENV)/ready ## Check the promise for minutes=5 while servers fail
	@VENV=$(VENV) scripts/soak $(minutes)

clean: ## Remove what the other commands made
	rm -rf $(VENV) .bench-venv scripts/bench/contestants/fastify/node_modules build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	@scripts/install $(PYTHON) $(VENV)
	@touch $@
