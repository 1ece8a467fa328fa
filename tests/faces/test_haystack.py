"""The suites of haystack.testing over a store that speaks the HTTP API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed: `make test-faces` does so")

from haystack import Document
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites

from tests.faces.haystack_store import IndexdDocumentStore
from tests.test_serve import serving


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(Path(tmp_path_factory.mktemp("haystack"))) as (client, _):
        yield str(client.base_url)


class Assertions(suites.FilterableDocsFixtureMixin):
    """Order is that of the writes, and float32 is not float64: both are allowed to differ."""

    @pytest.fixture
    def document_store(self, server_url: str) -> IndexdDocumentStore:
        return IndexdDocumentStore(server_url, f"haystack-{uuid4().hex}")

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        def told(documents: list[Document]) -> list[Any]:
            return sorted((one.id, one.content, sorted(one.meta.items())) for one in documents)

        assert told(received) == told(expected)
        vectors = {one.id: one.embedding for one in expected}
        for one in received:
            assert one.embedding == pytest.approx(vectors[one.id], rel=1e-5)


class TestStore(
    Assertions,
    suites.DocumentStoreBaseExtendedTests,
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
):
    """What every store has, and what larger ones add."""

    @pytest.fixture
    def document_store(self, server_url: str) -> IndexdDocumentStore:
        return IndexdDocumentStore(server_url, f"haystack-{uuid4().hex}")


class TestAsyncStore(
    Assertions,
    async_suites.CountDocumentsAsyncTest,
    async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest,
    async_suites.DeleteAllAsyncTest,
    async_suites.DeleteByFilterAsyncTest,
    async_suites.DeleteDocumentsAsyncTest,
    async_suites.FilterDocumentsAsyncTest,
    async_suites.UpdateByFilterAsyncTest,
    async_suites.WriteDocumentsAsyncTest,
):
    """The same, asynchronously."""
