# `make help` lists what there is. Everything runs in a virtual environment of its own.

port ?= 8080
minutes ?= 5
org ?=
PYTHON ?= python3
VENV ?= .venv

export PORT = $(port)
export port
# For compose.yaml: each checkout has containers and data of its own, also where two directories
# have the same name.
export checkout := -$(firstword $(shell printf %s '$(CURDIR)' | cksum))
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help dev test test-engine lint format openapi bench benchmarks soak pictures
.PHONY: build run upload-prod local up down clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

dev: $(VENV)/ready ## Run the service on port=8080, in memory, started anew when a file changes
	@exec $(VENV)/bin/python scripts/dev

test: $(VENV)/ready ## Run every test
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

test-engine: $(VENV)/ready ## Try what the service needs on ENGINE_URI=postgresql://…, an empty database
	$(VENV)/bin/python -m pytest tests/functional tests/system/database/test_engine.py

lint: $(VENV)/ready ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/ready ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

openapi: $(VENV)/ready ## Make hello/openapi.json of hello/openapi.yaml
	@$(VENV)/bin/python scripts/openapi

bench: $(VENV)/ready ## Compare with other stacks; ARGS='--workloads get'; needs wrk
	@PYTHON=$(VENV)/bin/python scripts/bench/prepare
	@$(VENV)/bin/python scripts/bench $(ARGS)

benchmarks: $(VENV)/ready ## Measure all of it for 30 minutes and write docs/benchmarks.md; ARGS=--quick
	@PYTHON=$(VENV)/bin/python scripts/bench/prepare
	@$(VENV)/bin/python scripts/bench --document $(ARGS)

soak: $(VENV)/ready ## Check the promise for minutes=5 while servers fail
	@VENV=$(VENV) scripts/soak $(minutes)

pictures: $(VENV)/ready ## Draw the pictures in docs/ and compute its figures; needs rsvg-convert
	@$(VENV)/bin/python scripts/draw.py
	@$(VENV)/bin/python scripts/simulate_scale.py --write

build: ## Build the image hello:dev
	docker build --tag hello:dev \
		--build-arg REVISION="$$(git describe --always --abbrev=40 --exclude='*' --dirty)" .

run: ## Run that image on port=8080 as Kubernetes would: no root, nothing to write on
	@scripts/run

upload-prod: ## Push the image of this commit to org=… and write deployment.yml
	@scripts/upload-prod "$(org)"

local: build ## Run everything on the small cluster that kubectl points at, as kind or minikube
	@scripts/local

up: build ## Run everything with compose on port=8080: two instances, PostgreSQL, Valkey
	@scripts/secrets
	docker compose up --detach --wait

down: ## Stop what `make up` started, and forget its data
	docker compose down --volumes

clean: ## Remove what the other commands made
	rm -rf $(VENV) .bench-venv scripts/bench/contestants/fastify/node_modules build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	@scripts/install $(PYTHON) $(VENV)
	@touch $@
