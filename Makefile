# Everything runs in .venv, made from a bare python3. `make serve` installs only what serving needs.

PYTHON ?= python3
PORT ?= 8080
SEED ?= 1
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help serve test soak lint format lock clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/serve.stamp  ## serve the models that ship with the package at http://127.0.0.1:8080
	$(BIN)/maskserve serve --port $(PORT)

test: .venv/develop.stamp  ## run all tests
	$(BIN)/python -m pytest

soak: .venv/develop.stamp  ## try to break the server for a quarter of an hour; SEED=2 for other inputs
	$(BIN)/python -m pytest tests/soak --long --seed $(SEED) --out build/soak

lint: .venv/develop.stamp  ## check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/develop.stamp  ## apply the style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock:  ## pin the newest allowed versions of everything in constraints.txt
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip
	.venv-lock/bin/python -m pip install --quiet --editable '.[otel,quantize,ray,s3]' --group test
	.venv-lock/bin/python -m pip freeze --all --exclude-editable > constraints.txt
	rm -rf .venv-lock

clean:  ## remove the environment and caches
	rm -rf .venv .venv-lock .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/pip.stamp: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) pip
	@touch $@

.venv/serve.stamp: .venv/pip.stamp pyproject.toml
	$(PIP) --editable .
	@touch $@

.venv/develop.stamp: .venv/pip.stamp pyproject.toml
	$(PIP) --editable '.[otel,quantize,ray,s3]' --group test
	@touch $@ .venv/serve.stamp
