# Everything here sets itself up: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV   := .venv
UV     := $(shell command -v uv 2>/dev/null || echo $(VENV)/bin/uv)
READY  := $(VENV)/.ready

# Behind a proxy with certificates of its own, uv must trust what the machine trusts.
export UV_SYSTEM_CERTS := 1

# Where bytecode must not be written, each command would compile a thousand modules anew: 6 s.
unexport PYTHONDONTWRITEBYTECODE

# Tests wait for most of their time, so two processes run them; each starts its own PostgreSQL.
SIDE_BY_SIDE := -n 2 --dist loadgroup

# The frameworks of others stay out of the lock: their newest versions are what counts.
FACES := .venv-faces

.PHONY: help serve test test-fast test-faces check prose docs sql format lock catalogue push-index bench

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

serve: $(READY) ## Run the service with its own PostgreSQL
	$(VENV)/bin/indexd serve

test: $(READY) ## Run all tests
	$(VENV)/bin/pytest $(SIDE_BY_SIDE)

test-fast: $(READY) ## Run the tests that are not marked slow
	$(VENV)/bin/pytest $(SIDE_BY_SIDE) -m "not slow"

test-faces: $(FACES)/.ready ## Run suites of others over small clients of the HTTP API
	HAYSTACK_TELEMETRY_ENABLED=False $(FACES)/bin/pytest tests/faces

check: $(READY) ## Format, lint, types, who may import whom, and prose
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/prose.py

prose: $(READY) ## List riddling phrases in comments, docstrings and pages
	$(VENV)/bin/python scripts/prose.py

docs: $(READY) ## Write docs/reference from the program
	$(VENV)/bin/python scripts/reference.py

catalogue: $(READY) ## Write down what the migrations make, for `indexd db check`
	$(VENV)/bin/python scripts/catalogue.py

format: $(READY) ## Format the code and mend what can be mended
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

sql: $(READY) ## Render the statements of the store into tests/sql
	$(VENV)/bin/python -m tests.rendered_sql

push-index: $(READY) ## Push .gewebe/embeddings.parquet to a running service
	$(VENV)/bin/python scripts/push_index.py

bench: $(READY) ## Measure everything but the soak, and write the tables of search into docs/ (an hour)
	$(VENV)/bin/python -m benchmarks search --out docs
	for name in push forgetting hybrid embedder auth overload; do \
		$(VENV)/bin/python -m benchmarks $$name || exit 1; done

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
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --compile-bytecode --require-hashes --requirement requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --editable .
	touch $@

$(FACES)/.ready: $(READY)
	test -x $(FACES)/bin/python || $(PYTHON) -m venv $(FACES)
	VIRTUAL_ENV=$(FACES) $(UV) pip install --quiet --compile-bytecode --require-hashes --requirement requirements.lock
	VIRTUAL_ENV=$(FACES) $(UV) pip install --quiet --no-deps --editable .
	VIRTUAL_ENV=$(FACES) $(UV) pip install --quiet "haystack-ai>=3.4"
	touch $@
