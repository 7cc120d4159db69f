.PHONY: help install test lint format check package record loss-curves docs docs-quick

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
	python scripts/documentation/record_terminal.py docs/images/default-run.svg --title tl-train -- tl-train name=default
	python scripts/documentation/update_readme.py outputs/default

loss-curves:  ## write tests/assets/losses.csv anew, after a change that is meant to change the numbers
	TORCH_LINGUIST_WRITE_CURVES=1 pytest -n 0 -q tests/unit/trainer/test_loss_curves.py::test_the_curves_are_written_anew
	git diff --stat tests/assets/losses.csv

docs:  ## run the guide and build the documentation: docs/_build/html (pip install -e ".[docs]")
	sphinx-build -W --keep-going -b html docs docs/_build/html

docs-quick:  ## the same with smaller sizes
	TORCH_LINGUIST_GUIDE=quick sphinx-build -W --keep-going -b html -d docs/_build/doctrees-quick docs docs/_build/html-quick
