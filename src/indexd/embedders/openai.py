"""Any server with OpenAI's POST /v1/embeddings: vLLM, TEI, LM Studio, llama.cpp, OpenAI."""

from collections.abc import Sequence
from operator import attrgetter

import httpx
import msgspec
from numpy.typing import ArrayLike

from indexd.embedders import remote
from indexd.embedders.protocol import Failure, Kind
from indexd.vectors import Model

_NO_LIST = (404, 405, 501)
"""HTTP statuses of a server that has no list of models."""


class _Item(msgspec.Struct):
    index: int
    embedding: list[float]


class _Embedded(msgspec.Struct):
    data: list[_Item]


class OpenAI:
    def __init__(self, base_url: str, model: str, *, timeout: float, key: str | None) -> None:
        """If base_url has no path, the path is `/v1`."""
        if httpx.URL(base_url).path in ("", "/"):
            base_url = base_url.rstrip("/") + "/v1"
        self._client = remote.client(base_url, timeout=timeout, key=key)
        self._model = model

    @property
    def name(self) -> str:
        return f"openai at {remote.shown(self._client)}"

    async def model(self) -> Model:
        """The model of the settings, without a revision, which the protocol does not have.

        The request for the list of models only checks that the server answers. A server without
        such a list passes the check.
        """
        try:
            await remote.ask(self._client, "GET", "/models")
        except Failure as failure:
            if failure.status not in _NO_LIST:
                raise
        return Model(self._model)

    async def embed(self, texts: Sequence[str], kind: Kind) -> ArrayLike:
        sent = {"model": self._model, "input": texts, "encoding_format": "float"}
        body = await remote.ask(self._client, "POST", "/embeddings", sent)
        items = sorted(remote.decoded(body, _Embedded, self._client).data, key=attrgetter("index"))
        if [item.index for item in items] != list(range(len(items))):
            raise Failure("answer", f"{self.name} left out or repeated some of the texts")
        return [item.embedding for item in items]

    async def close(self) -> None:
        await self._client.aclose()
