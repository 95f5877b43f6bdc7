# Everyday verbs. `make demo` and `make test` do all set-up on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test adapters check serve bench clean

help:            ## list these verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(STAMP) ## create the virtual environment and install everything, by hash

$(STAMP): constraints.txt pyproject.toml
	@scripts/install "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

demo: install    ## the whole main job on embedded defaults, with a summary
	@$(BIN)/python scripts/demo.py

test: install    ## every test; says what it skipped and why
	@scripts/test-tools
	@echo "Not among these: Airflow, Dagster and Prefect, in environments of their own. They are checked by: make adapters"
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(TESTS)

adapters: install ## follow the how-tos of Airflow, Celery, cron, Dagster, Kubernetes and Prefect with the real engines
	@VENV="$(VENV)" scripts/check-adapter

check: install   ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

serve: install   ## the server, on http://127.0.0.1:8300, data in ./taskcred-data
	@$(BIN)/taskcred serve --data-dir taskcred-data --config examples/taskcred.toml

bench: install   ## measure, as ratios side by side; never part of the tests
	@$(BIN)/python -m bench

clean:           ## forget the virtual environment
	rm -rf $(VENV)
