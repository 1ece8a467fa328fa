"""Ollama: POST /api/embed, and the model's digest from GET /api/tags as its revision."""

from collections.abc import Sequence

import msgspec
from numpy.typing import ArrayLike

from indexd.embedders import remote
from indexd.embedders.protocol import Failure, Kind
from indexd.vectors import Model

DEFAULT_URL = "http://127.0.0.1:11434"
DEFAULT_MODEL = "nomic-embed-text"

DIGEST = 12
"""Number of hexadecimal digits of a digest that are the revision, as in `ollama list`."""


class _Tag(msgspec.Struct):
    name: str
    digest: str


class _Tags(msgspec.Struct):
    models: list[_Tag]


class _Embedded(msgspec.Struct):
    embeddings: list[list[float]]


class Ollama:
    def __init__(self, base_url: str, model: str, *, timeout: float) -> None:
        self._client = remote.client(base_url, timeout=timeout)
        self._model = model

    @property
    def name(self) -> str:
        return f"ollama at {remote.shown(self._client)}"

    async def model(self) -> Model:
        """The model and its digest. A name without a tag means the tag `latest`, which is left out
        of the model's name.
        """
        body = await remote.ask(self._client, "GET", "/api/tags")
        tags = remote.decoded(body, _Tags, self._client)
        wanted = self._model if ":" in self._model else f"{self._model}:latest"
        digest = next((tag.digest for tag in tags.models if tag.name == wanted), None)
        if digest is None:
            raise Failure(
                "status",
                f"{self.name} has no model {wanted!r}, run `ollama pull {wanted}`",
                lasting=True,
            )
        return Model(wanted.removesuffix(":latest"), digest.removeprefix("sha256:")[:DIGEST])

    async def embed(self, texts: Sequence[str], kind: Kind) -> ArrayLike:
        sent = {"model": self._model, "input": texts}
        body = await remote.ask(self._client, "POST", "/api/embed", sent)
        return remote.decoded(body, _Embedded, self._client).embeddings

    async def close(self) -> None:
        await self._client.aclose()
