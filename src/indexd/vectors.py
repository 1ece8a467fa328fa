"""Embeddings: what is taken, and the form in which they are stored and compared."""

from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexd.errors import DimensionMismatch, EmbedderUnavailable, InvalidEmbedding, ModelMismatch

MAX_DIMENSION = 16_000
"""What pgvector's `vector` type can hold."""

Embedding = NDArray[np.float32]
"""Shape (dimension,), L2-normalised."""


class Model(msgspec.Struct, frozen=True):
    """What a vector was made by. Other weights under the same name have another revision."""

    name: str
    revision: str | None = None

    @classmethod
    def named(cls, name: str | None, revision: str | None) -> Self | None:
        """None where nobody said what it is called."""
        return None if name is None else cls(name, revision)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def agrees_with(self, other: "Model | None") -> bool:
        """Whether their vectors may be compared; what is not known speaks against nothing."""
        return other is None or (
            self.name == other.name
            and (None in (self.revision, other.revision) or self.revision == other.revision)
        )


PENDING_EMBEDDING: Embedding = np.empty(0, dtype=np.float32)
"""Stands for a vector that the embedder has yet to make: no other has dimension 0."""

ALLOWED = f"expected an array of 1 to {MAX_DIMENSION:,} finite numbers, not all zero"


def parse(value: Any, where: str) -> Embedding:
    """Check what a client sent as an embedding and normalise it to length 1.

    `where` names the place in the message, such as "chunk 'c2'". Raises InvalidEmbedding for
    anything but an array of numbers that float32 can represent, not all of them zero. One that is
    parsed already is taken as it is.
    """
    if isinstance(value, np.ndarray):
        return value
    if value is None:
        raise InvalidEmbedding(f"{where}: the embedding is null, {ALLOWED}")
    try:
        numbers = msgspec.convert(value, list[float])
    except msgspec.ValidationError as error:
        raise InvalidEmbedding(f"{where}: the embedding is not valid, {ALLOWED}") from error
    if not 1 <= len(numbers) <= MAX_DIMENSION:
        raise InvalidEmbedding(f"{where}: the embedding has {len(numbers)} numbers, {ALLOWED}")
    wide = np.array(numbers, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InvalidEmbedding(f"{where}: the embedding overflows float32, {ALLOWED}")
    if not narrow.any():
        raise InvalidEmbedding(f"{where}: the embedding is all zero, {ALLOWED}")
    return normalised(narrow)


def normalised(vector: NDArray[np.float32]) -> Embedding:
    """Scale to length 1; the norm is taken in float64, where no float32 squared overflows."""
    wide = vector.astype(np.float64)
    return (wide / np.sqrt(wide @ wide)).astype(np.float32)


def mismatch(where: str, expected: int, got: int) -> DimensionMismatch:
    """The error for an embedding of another dimension than its namespace or siblings."""
    return DimensionMismatch(
        f"{where} embedding dimensionality mismatch: expected {expected}, got {got}",
        hint="a namespace keeps the dimension of its first document until it is empty",
        details={"expected": expected, "got": got},
    )


def embedder_mismatch(namespace: str, expected: int, got: int) -> EmbedderUnavailable:
    """The error for a text that cannot be compared: not the client's fault, who sent no vector."""
    return EmbedderUnavailable(
        f"the embedder's vectors have dimension {got}, "
        f"namespace {namespace!r} holds vectors of dimension {expected}"
    )


def other_model(where: str, namespace: str, expected: Model, got: Model) -> ModelMismatch:
    """The error for an embedding of another model than its namespace's."""
    return ModelMismatch(
        f"{where} comes from model {got}, but the vectors of namespace {namespace!r} "
        f"come from {expected}",
        hint="a namespace keeps its model until it is empty, or until `indexd reembed` is done",
        details={"expected": str(expected), "got": str(got)},
    )
