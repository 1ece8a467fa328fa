# Everything here sets itself up: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV   := .venv
UV     := $(shell command -v uv 2>/dev/null || echo $(VENV)/bin/uv)
READY  := $(VENV)/.ready

# Behind a proxy with certificates of its own, uv must trust what the machine trusts.
export UV_SYSTEM_CERTS := 1

.PHONY: help serve test check format lock catalogue push-index bench

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

serve: $(READY) ## Run the service with its own PostgreSQL
	$(VENV)/bin/indexd serve

test: $(READY) ## Run all tests
	$(VENV)/bin/pytest

check: $(READY) ## Format, lint, types, and who may import whom
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

catalogue: $(READY) ## Write down what the migrations make, for `indexd db check`
	$(VENV)/bin/python scripts/catalogue.py

format: $(READY) ## Format the code and mend what can be mended
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

push-index: $(READY) ## Push .gewebe/embeddings.parquet to a running service
	$(VENV)/bin/python scripts/push_index.py

bench: $(READY) ## Measure, print tables, and write those of search into docs/ (an hour)
	$(VENV)/bin/python -m benchmarks writing
	$(VENV)/bin/python -m benchmarks forgetting
	$(VENV)/bin/python -m benchmarks search --out docs

lock: $(READY) ## Resolve the dependencies anew
	$(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --group dev --group bench pyproject.toml -o requirements.lock
	$(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --constraint requirements.lock pyproject.toml -o deploy/requirements.lock

# The virtual environment holds what requirements.lock says. uv is used where it is installed;
# elsewhere it is put into the environment itself.
$(READY): requirements.lock pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	command -v $(UV) >/dev/null || $(VENV)/bin/python -m pip install --quiet uv
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --require-hashes --requirement requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --editable .
	touch $@
