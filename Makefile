.PHONY: help install test lint format check package record

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install:  ## install the package and the development tools, editable
	pip install -e ".[dev]"

test:  ## run all tests
	pytest

lint:  ## run ruff, mypy and import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format:  ## fix and format the code with ruff
	ruff check --fix .
	ruff format .

check: lint test  ## run everything that a change must pass

package:  ## build and check wheel and sdist (pip install build twine check-wheel-contents)
	rm -rf dist
	python -m build
	twine check --strict dist/*
	check-wheel-contents dist/*.whl

record:  ## record the default run for the README (five minutes; uses outputs/default)
	python scripts/record_terminal.py docs/images/default-run.svg --title tl-train -- tl-train name=default
	python scripts/update_readme.py outputs/default
