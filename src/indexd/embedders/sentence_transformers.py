"""A model that runs in this process; needs the optional extra `sentence-transformers`."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from indexd.embedders.protocol import Failure, Kind
from indexd.errors import ConfigurationError
from indexd.vectors import Model

DEFAULT_MODEL = "all-MiniLM-L6-v2"

DIGEST = 12
"""Number of hexadecimal digits of the weights' SHA-256 that are the revision."""


class SentenceTransformers:
    """`model` is a name on the Hugging Face hub, or a folder. One thread loads it, and embeds."""

    def __init__(self, model: str) -> None:
        if find_spec("sentence_transformers") is None:
            raise ConfigurationError(
                "embedder_provider: sentence-transformers is not installed; "
                "install the extra `indexd[sentence-transformers]`"
            )
        self._source = model
        # One thread suffices, because torch uses all cores for one batch.
        self._thread = ThreadPoolExecutor(1, "embed")
        self._loading: asyncio.Future[tuple[Any, Model]] | None = None

    @property
    def name(self) -> str:
        return "sentence-transformers"

    async def model(self) -> Model:
        return (await self._loaded())[1]

    async def _loaded(self) -> tuple[Any, Model]:
        """Wait until the model is loaded. A caller that is cancelled does not stop the loading."""
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            loop = asyncio.get_running_loop()
            self._loading = loop.run_in_executor(self._thread, _load, self._source)
        return await asyncio.shield(self._loading)

    async def embed(self, texts: Sequence[str], kind: Kind) -> ArrayLike:
        transformer, _ = await self._loaded()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _encode, transformer, list(texts))

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _load(source: str) -> tuple[Any, Model]:
    # Imported here, because it takes seconds, and most installations do not have it.
    from sentence_transformers import SentenceTransformer

    try:
        transformer = SentenceTransformer(source)
    except Exception as error:  # the library raises many types, by the files and the hub
        raise Failure(
            "answer", f"the model cannot be loaded ({type(error).__name__})", lasting=True
        ) from error
    name = Path(source).name if Path(source).is_dir() else source
    return transformer, Model(name, _revision(transformer))


def _revision(transformer: Any) -> str:
    """A digest of the weights, so that a copy in a folder has the revision of the original."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(transformer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:DIGEST]


def _encode(transformer: Any, texts: list[str]) -> ArrayLike:
    try:
        vectors: ArrayLike = transformer.encode(
            texts, batch_size=len(texts), show_progress_bar=False
        )
    except Exception as error:  # mostly out of memory
        raise Failure("answer", f"the model failed ({type(error).__name__})") from error
    return vectors
