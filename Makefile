.PHONY: help install test lint format check

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install:  ## the package and what its tests need, editable
	pip install -e ".[dev]"

test:  ## all tests
	pytest

lint:  ## ruff, mypy, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format:  ## let ruff put the code in order
	ruff check --fix .
	ruff format .

check: lint test  ## what a change has to pass
