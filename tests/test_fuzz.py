"""Requests made up from the OpenAPI document: no 500, and no answer that it does not describe."""

import warnings
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from tests.test_serve import external, serving

pytestmark = pytest.mark.slow

__all__ = ["external"]

EXAMPLES = 25
"""Per operation, so that the whole takes some seconds."""


def test_no_made_up_request_breaks_the_service(
    tmp_path: Path, external: str, clone: psycopg.Connection[Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis
        from schemathesis.specs.openapi import checks

    described = [
        *(checks.status_code_conformance, checks.content_type_conformance),
        *(checks.response_headers_conformance, checks.response_schema_conformance),
    ]

    @schemathesis.serializer("application/x-ndjson")
    def lines(_: object, value: object) -> bytes:
        return str(value).encode("utf-8", "replace")

    seen: dict[str, set[int]] = {}
    with serving(tmp_path, "--database-url", external) as (client, process):
        schema = schemathesis.openapi.from_url(f"{client.base_url}/schema/openapi.json")
        for found in schema.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]
            statuses = seen.setdefault(operation.label, set())

            @hypothesis_settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def check(case: Any) -> None:
                answer = case.call()
                case.validate_response(answer, checks=described)
                statuses.add(answer.status_code)  # noqa: B023 (called in the loop)
                unembedded = '"embedder_unavailable"' in answer.text  # there is none here
                assert answer.status_code < 500 or unembedded, (case.as_curl_command(), answer.text)
                if answer.status_code >= 400:
                    assert {"error", "code"} <= answer.json().keys(), answer.text

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check()
        assert process.poll() is None
        assert client.get("/readyz").status_code == 200
    # An id that a request made up may read like the message.
    assert '"event":"request failed"' not in (tmp_path / "out").read_text()
    assert len(seen) >= 10
    assert 200 in seen["POST /index/search"] | seen["POST /index/upsert"]
