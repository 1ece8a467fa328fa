"""Embeddings: which ones are accepted, and the form in which they are stored and compared."""

from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexd.errors import DimensionMismatch, EmbedderUnavailable, InvalidEmbedding, ModelMismatch

MAX_DIMENSION = 16_000
"""Numbers per embedding at most: the limit of pgvector's `vector` type."""

Embedding = NDArray[np.float32]
"""Shape (dimension,), L2-normalised."""


PREFIXED = "prefixes-"
"""In the revision of a model whose texts begin with prefixes; a digest of them follows."""


class Model(msgspec.Struct, frozen=True):
    """The model that made a vector. Other weights under the same name have another revision."""

    name: str
    revision: str | None = None

    @classmethod
    def named(cls, name: str | None, revision: str | None) -> Self | None:
        """The model of this name; None if no name is given."""
        return None if name is None else cls(name, revision)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def agrees_with(self, other: "Model | None") -> bool:
        """Whether vectors of both models may be compared. Unknown models and revisions agree."""
        return other is None or (
            self.name == other.name
            and (None in (self.revision, other.revision) or self.revision == other.revision)
        )

    def continues(self, stored: "Model | None") -> bool:
        """Whether the embedder with this model may serve vectors that are stored as `stored`.

        Unlike a client, which cannot name a revision, the embedder has had one written down for
        its vectors as long as it writes prefixes. Where none is, they were made without prefixes.
        """
        if not self.agrees_with(stored):
            return False
        is_prefixed = self.revision is not None and PREFIXED in self.revision
        return not (is_prefixed and stored is not None and stored.revision is None)


PENDING_EMBEDDING: Embedding = np.empty(0, dtype=np.float32)
"""Placeholder of a vector that the embedder has not made yet. No real vector has dimension 0."""

ALLOWED = f"expected an array of 1 to {MAX_DIMENSION:,} finite numbers, not all zero"


def parse(value: Any, where: str) -> Embedding:
    """Check what a client sent as an embedding and normalise it to length 1.

    `where` names the embedding in the message, such as "chunk 'c2'". Raises InvalidEmbedding unless
    it is an array of numbers that float32 can represent, and not all of them are zero. A numpy
    array is returned unchanged, because it was parsed before.
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
    """Scale to length 1. The norm is computed in float64, so that no square overflows."""
    wide = vector.astype(np.float64)
    return (wide / np.sqrt(wide @ wide)).astype(np.float32)


def mismatch(where: str, expected: int, got: int) -> DimensionMismatch:
    """The error for an embedding whose dimension differs from its namespace or document."""
    return DimensionMismatch(
        f"{where} embedding dimensionality mismatch: expected {expected}, got {got}",
        hint="a namespace keeps the dimension of its first document until it is empty",
        details={"expected": expected, "got": got},
    )


def embedder_mismatch(namespace: str, expected: int, got: int) -> EmbedderUnavailable:
    """The error for a text whose new vector does not fit the namespace.

    It is a 503 and not a 400, because the client sent no vector and is not at fault.
    """
    return EmbedderUnavailable(
        f"the embedder's vectors have dimension {got}, "
        f"namespace {namespace!r} holds vectors of dimension {expected}"
    )


def other_model(where: str, namespace: str, expected: Model, got: Model) -> ModelMismatch:
    """The error for an embedding whose model differs from that of its namespace."""
    return ModelMismatch(
        f"{where} comes from model {got}, but the vectors of namespace {namespace!r} "
        f"come from {expected}",
        hint="a namespace keeps its model until it is empty, or until `indexd reembed` is done",
        details={"expected": str(expected), "got": str(got)},
    )
