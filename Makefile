# Two commands do everything, installing included:
#   make quickstart   measure five classifiers and write report.html
#   make test         run the tests
# Both work in the virtual environment $(VENV), which the first of them makes.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install $(if $(CI),--quiet --progress-bar off)

.PHONY: quickstart test check docs clean

quickstart: $(VENV)/.installed-samples
	$(BIN)/aresbench run --suite quickstart
	$(BIN)/aresbench report -o report.html

# Tests run one image batch per core: more threads per worker would only fight each other.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python scripts/example_site.py docs/example
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site

$(VENV)/.installed-samples: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[samples]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml requirements/peers.txt requirements/peers_last.txt | $(VENV)/bin/python
	$(PIP) --editable ".[samples,dev]"
	$(PIP) --no-deps --requirement requirements/peers.txt
	$(PIP) --no-deps --force-reinstall --requirement requirements/peers_last.txt
	touch $@ $(VENV)/.installed-samples

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("aresbench needs Python 3.11 or newer: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
