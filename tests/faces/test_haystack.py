"""The suites of haystack.testing over a store that speaks the HTTP API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed: `make test-faces` does so")

from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites

from tests.faces.haystack_store import IndexdDocumentStore
from tests.test_serve import serving


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(Path(tmp_path_factory.mktemp("haystack"))) as (client, _):
        yield str(client.base_url)


def opened(url: str) -> Iterator[IndexdDocumentStore]:
    """A store in a namespace of its own."""
    store = IndexdDocumentStore(url, f"haystack-{uuid4().hex}")
    yield store
    store.close()


class Assertions(suites.FilterableDocsFixtureMixin):
    """Order is that of the writes, and float32 is not float64: both are allowed to differ."""

    @pytest.fixture
    def document_store(self, server_url: str) -> Iterator[IndexdDocumentStore]:
        yield from opened(server_url)

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        def told(documents: list[Document]) -> list[Any]:
            return sorted((one.id, one.content, sorted(one.meta.items())) for one in documents)

        assert told(received) == told(expected)
        vectors = {one.id: one.embedding for one in expected}
        for one in received:
            vector = vectors[one.id]
            assert one.embedding == (vector and pytest.approx(vector, rel=1e-5))


class TestStore(
    Assertions,
    suites.DocumentStoreBaseExtendedTests,
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
):
    """What every store has, and what larger ones add."""

    @pytest.fixture
    def document_store(self, server_url: str) -> Iterator[IndexdDocumentStore]:
        yield from opened(server_url)

    def test_write_documents(self, document_store: IndexdDocumentStore) -> None:
        """Without a policy, a document that is there already is refused."""
        one = Document(content="test doc")
        assert document_store.write_documents([one]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([one])


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

    async def test_write_documents_async(self, document_store: IndexdDocumentStore) -> None:
        """As without `async`."""
        one = Document(content="test doc")
        assert await document_store.write_documents_async([one]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([one])
