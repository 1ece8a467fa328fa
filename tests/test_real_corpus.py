"""40,000 real commit messages and 200 real queries, against numpy. Skipped without them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client

pytestmark = pytest.mark.slow

DIMENSION = 384


def vectors(table: Any) -> NDArray[np.float32]:
    flat = table["embedding"].combine_chunks().values.to_numpy()
    found: NDArray[np.float32] = flat.reshape(-1, DIMENSION).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


@pytest.fixture
async def scanning(settings: Settings) -> AsyncIterator[Client]:
    """No index is built, however long the load takes: what is scanned is exact."""
    async with Client(create_app(msgspec.structs.replace(settings, index_threshold=10**9))) as one:
        yield one


async def test_every_query_finds_numpys_top_ten(scanning: Client, shared_data: Path) -> None:
    corpus = pq.read_table(shared_data / "gitlog.parquet")
    embeddings, ids = vectors(corpus), corpus["id"].to_pylist()
    doc_ids = corpus["doc_id"].to_pylist()
    lines = b"\n".join(
        msgspec.json.encode(
            {
                "namespace": "chronik",
                "doc_id": doc_id,
                "chunks": [{"id": chunk_id, "embedding": vector.tolist()}],
            }
        )
        for doc_id, chunk_id, vector in zip(doc_ids, ids, embeddings, strict=True)
    )
    answer = await scanning.post(
        "/index/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert (answer.json()["accepted"], answer.json()["failed"]) == (len(ids), 0)
    place = {chunk_id: n for n, chunk_id in enumerate(ids)}
    for query in vectors(pq.read_table(shared_data / "queries.parquet")):
        cosine = embeddings @ query
        response = await scanning.post(
            "/index/search", json={"namespace": "chronik", "embedding": query.tolist()}
        )
        found = [place[result["chunk_id"]] for result in response.json()["results"]]
        # Ties aside: the cosines found are the ten highest there are.
        assert cosine[found] == pytest.approx(np.sort(cosine)[::-1][:10], abs=1e-6)
        assert len(set(found)) == 10
