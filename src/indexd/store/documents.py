"""A document: its chunks, its source, and the digest by which two versions are compared."""

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from indexd import vectors
from indexd.errors import DuplicateChunkId, NotFound
from indexd.names import as_asked
from indexd.vectors import Embedding, Model


def missing(namespace: str, doc_id: str) -> NotFound:
    """The error for a document that does not exist; names the namespace as it was asked for."""
    return NotFound(f"there is no document {doc_id!r} in namespace {as_asked(namespace)!r}")


class SourceRef(msgspec.Struct, frozen=True):
    """Where a document came from, as the client says: `source_ref` of an upsert."""

    origin: Annotated[str, Meta(description="System that the document comes from")]
    id: Annotated[str, Meta(description="Id or path of the document in that system")]
    offset: Annotated[str | None, Meta(description="Place inside the source")] = None
    trust_level: Annotated[
        str | None, Meta(description="How far the source is trusted: `low`, `medium` or `high`")
    ] = None
    injected_by: Annotated[str | None, Meta(description="Who or what put the document in")] = None


class Chunk(msgspec.Struct, frozen=True):
    """One piece of a document; `meta` is without the embedding.

    `embedding` is PENDING_EMBEDDING until the embedder made it, which `embedded_here` then says. It
    is None where the text is stored without a vector, for the search by words alone.
    """

    chunk_id: str
    text: str
    meta: dict[str, Any]
    tags: tuple[str, ...]
    source_path: str | None
    embedding: Embedding | None
    embedded_here: bool = False

    @property
    def is_pending(self) -> bool:
        return self.embedding is not None and self.embedding.size == 0


OnConflict = Literal["overwrite", "skip", "fail"]


class Document(msgspec.Struct, frozen=True):
    """A document as a client sends it. All vectors have one dimension, all chunks different ids.

    `ingested_at` None means the time of the write; `model` None means that the client did not name
    the model that made the vectors. `on_conflict` says what a document that is stored already is
    for: overwritten, left as it is, or a reason to refuse. With `if_version` the document is
    written only if the stored one has this version; 0: only if there is none. It expires at
    `expires_at`, or `ttl_seconds` after the write; with neither, never.
    """

    namespace: str
    doc_id: str
    chunks: tuple[Chunk, ...]
    meta: dict[str, Any]
    source_ref: SourceRef | None = None
    half_life_seconds: float | None = None
    ingested_at: datetime | None = None
    expires_at: datetime | None = None
    ttl_seconds: float | None = None
    model: Model | None = None
    on_conflict: OnConflict = "overwrite"
    if_version: int | None = None

    @property
    def dimension(self) -> int | None:
        """That of its vectors; None where it has none."""
        vectors = (chunk.embedding for chunk in self.chunks)
        return next((vector.size for vector in vectors if vector is not None), None)

    def digest(self) -> bytes:
        """The hash of everything sent but the time and the expiry.

        The same content has the same digest, in whatever order its JSON keys came. A vector that
        our embedder made is not part of it: it follows from the text.
        """
        digest = hashlib.sha256(
            msgspec.json.encode(
                (
                    self.meta,
                    self.source_ref,
                    self.half_life_seconds,
                    [(chunk.chunk_id, chunk.text, chunk.meta) for chunk in self.chunks],
                ),
                order="sorted",
            )
        )
        for chunk in self.chunks:
            # Digests in databases contain these words, so they must not change.
            if chunk.embedding is None:
                digest.update(b"none")
            else:
                digest.update(b"made" if chunk.embedded_here else chunk.embedding.tobytes())
        return digest.digest()


def check_siblings(chunks: tuple[Chunk, ...]) -> None:
    """Raises where two ids are equal or two dimensions differ; a pending embedding has none."""
    ids: set[str] = set()
    sizes = [0 if chunk.embedding is None else chunk.embedding.size for chunk in chunks]
    expected = next((size for size in sizes if size), 0)
    for chunk, size in zip(chunks, sizes, strict=True):
        if chunk.chunk_id in ids:
            raise DuplicateChunkId(f"chunk id {chunk.chunk_id!r} appears more than once")
        ids.add(chunk.chunk_id)
        if size not in (0, expected):
            raise vectors.mismatch(f"chunk {chunk.chunk_id!r}", expected, size)
