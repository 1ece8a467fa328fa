"""Suites of others, held to small clients of the HTTP API; `make test-faces` runs them."""
