# `make help` lists what there is. Everything runs in a virtual environment of its own.

port ?= 8080
minutes ?= 5
org ?=
version ?=
# The Python to make the virtual environment of; without it, python3.
PYTHON ?=
VENV ?= .venv
# Which tests; a file, a directory, or one test: tests/unit/test_body.py::test_name
TESTS ?=

export PORT = $(port)
export port
# For compose.yaml: each checkout has containers and data of its own, also where two directories
# have the same name.
export checkout := -$(firstword $(shell printf %s '$(CURDIR)' | cksum))
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help dev test test-engine lint format lock openapi bench benchmarks soak pictures
.PHONY: build run release upload-prod local up down clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

dev: $(VENV)/runtime ## Run the service on port=8080, in memory, started anew when a file changes
	@exec $(VENV)/bin/python scripts/dev

test: $(VENV)/test ## Run every test, or some: TESTS=tests/unit, TESTS='tests/unit -k leap'
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

test-engine: $(VENV)/test ## Try what the service needs on ENGINE_URI=postgresql://…, an empty database
	$(VENV)/bin/python -m pytest tests/functional tests/system/database/test_engine.py

lint: $(VENV)/test ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/test ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: ## Make requirements/*.txt of setup.cfg; ARGS=--upgrade takes the newest versions
	@PYTHON=$(PYTHON) scripts/lock $(ARGS)

openapi: $(VENV)/test ## Make hello/openapi.json of hello/openapi.yaml
	@$(VENV)/bin/python scripts/openapi

bench: $(VENV)/test ## Compare with other stacks; ARGS='--workloads get'; needs wrk
	@PYTHON=$(VENV)/bin/python scripts/bench/prepare
	@$(VENV)/bin/python scripts/bench $(ARGS)

benchmarks: $(VENV)/test ## Measure all of it for 30 minutes and write docs/benchmarks.md; ARGS=--quick
	@PYTHON=$(VENV)/bin/python scripts/bench/prepare
	@$(VENV)/bin/python scripts/bench --document $(ARGS)

soak: $(VENV)/test ## Check the promise for minutes=5 while servers fail
	@VENV=$(VENV) scripts/soak $(minutes)

pictures: $(VENV)/test ## Draw the pictures in docs/ and compute its figures; needs rsvg-convert
	@$(VENV)/bin/python scripts/draw.py
	@$(VENV)/bin/python scripts/simulate_scale.py --write

build: ## Build the image hello:dev; BASE=python:…@sha256:… names its base by digest
	arguments=$$(scripts/image-arguments) && docker build --tag hello:dev $$arguments .

run: ## Run that image on port=8080 as Kubernetes would: no root, nothing to write on
	@scripts/run

release: ## Make version=1.2.3 of the changelog: a commit and a tag, here alone
	@$(or $(PYTHON),python3) scripts/release "$(version)"

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

# The script decides whether there is something to do: a PYTHON of another version counts too.
$(VENV)/runtime $(VENV)/test: FORCE
	@scripts/install $(@F) "$(PYTHON)" $(VENV)

FORCE:
