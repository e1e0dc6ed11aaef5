# The two commands on a fresh machine: `make up` (a model one can talk to, served on 127.0.0.1) and `make test`.
# Everything is set up in .venv at the root, from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: up tiny test check bench docs clean

up: $(READY)  ## a server on 127.0.0.1:8000; the first time it makes a model, at most 10 minutes on 2 cores
	test -d runs/tiny/model || $(BIN)/tsuzuri run recipes/tiny.yaml
	$(BIN)/tsuzuri serve

tiny: $(READY)  ## sample text -> tokenizer -> model -> conversation, at most 10 minutes on 2 cores
	$(BIN)/tsuzuri run recipes/tiny.yaml
	@echo
	@echo "話しかける / talk to it:  $(BIN)/tsuzuri chat"

test: $(READY)  ## every test
	$(BIN)/python -m pytest

check: $(READY)  ## exactly what continuous integration runs before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## every number we claim; run it alone on the machine
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

docs: $(READY)  ## the generated parts of the documentation
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build *.egg-info

$(READY): pyproject.toml constraints.txt setup.py $(wildcard tsuzuri/native/build.py tsuzuri/native/source/*)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 以上が要ります / Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)
