"""One document: what is stored of it, how far it has faded, and which rule would remove it when."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from indexd.clock import after
from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store import policies
from indexd.store.documents import SourceRef, missing
from indexd.store.forgetting import purge_rank
from indexd.store.forgetting.purge_rank import Place
from indexd.store.forgetting.relevance import PRIOR
from indexd.store.forgetting.retention import Reason


class StoredChunk(msgspec.Struct, frozen=True):
    """A chunk as it is stored."""

    chunk_id: Annotated[str, Meta(description="Id of the chunk")]
    text: Annotated[str, Meta(description="Text of the chunk; empty where it has none")]
    meta: Annotated[dict[str, Any], Meta(description="The chunk's meta without the embedding")]
    embedding: Annotated[
        list[float] | None, Meta(description="The vector, of length 1; null unless asked for")
    ]


class StoredDocument(msgspec.Struct, frozen=True):
    """A document as it is stored."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    half_life_seconds: Annotated[
        float | None,
        Meta(description="The document's own half-life in seconds; null if it has none"),
    ]
    meta: Annotated[dict[str, Any], Meta(description="Meta of the document as a whole")]
    source_ref: Annotated[
        SourceRef | None, Meta(description="Where the document comes from, if known")
    ]
    chunks: Annotated[list[StoredChunk], Meta(description="The chunks in the order they were sent")]


class Removal(msgspec.Struct, frozen=True):
    """The next rule to remove a document, and when."""

    reason: Annotated[Reason, Meta(description="Rule that will remove it")]
    at: Annotated[
        datetime,
        Meta(description="Time from which it is due, UTC; if past, the next upsert removes it"),
    ]


class Lifecycle(msgspec.Struct, frozen=True):
    """How far a document has faded, and which rule would remove it when."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    age_seconds: Annotated[float, Meta(description="Age in seconds, 0 or more")]
    half_life_seconds: Annotated[
        float | None,
        Meta(
            description="Half-life in force: the document's, else the namespace's; null: no decay"
        ),
    ]
    decay_factor: Annotated[float, Meta(description="What scores are multiplied with, from 0 to 1")]
    relevance: Annotated[
        float,
        Meta(description="Learned from searches, 0 to 1; 1 unless the policy has `semantic`"),
    ]
    irrelevant_since: Annotated[
        datetime | None, Meta(description="Time it was marked irrelevant, UTC; null if it is not")
    ]
    purge_rank: Annotated[
        int | None,
        Meta(description="Place in the order of removal, from 1; null without `max_items`"),
    ]
    would_be_forgotten: Annotated[
        Removal | None, Meta(description="Next rule to remove the document; null if none will")
    ]


async def document(
    connection: Connection, namespace: str, doc_id: str, *, vectors: bool
) -> StoredDocument:
    """Raises NotFound."""
    values = {"namespace": namespace, "doc_id": doc_id}
    cursor = await connection.execute(
        """
        SELECT ingested_at, half_life_seconds, meta, source_ref_origin, source_ref_id,
               source_ref_offset, source_ref_trust_level, source_ref_injected_by
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
        """,
        values,
    )
    row = await cursor.fetchone()
    if row is None:
        raise missing(namespace, doc_id)
    ingested_at, half_life, meta, *ref = row
    cursor = await connection.execute(
        f"""
        SELECT chunk_id, text, meta, {"embedding" if vectors else "NULL"}
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
         ORDER BY ordinal
        """,
        values,
    )
    return StoredDocument(
        doc_id=doc_id,
        namespace=namespace,
        ingested_at=ingested_at,
        half_life_seconds=half_life,
        meta=meta,
        source_ref=None if ref[0] is None else SourceRef(*ref),
        chunks=[
            StoredChunk(chunk_id, text, chunk_meta, None if vector is None else vector.to_list())
            for chunk_id, text, chunk_meta, vector in await cursor.fetchall()
        ],
    )


async def lifecycle(
    connection: Connection, namespace: str, doc_id: str, *, at: datetime
) -> Lifecycle:
    """Raises NotFound."""
    policy = await policies.of(connection, namespace)
    cursor = await connection.execute(
        """
        SELECT ingested_at,
               greatest(date_part('epoch', %(at)s - ingested_at), 0),
               half_life,
               indexd.decay(ingested_at, half_life, %(at)s),
               coalesce(smoothed_score, %(prior)s),
               irrelevant_since,
               (SELECT documents FROM indexd.namespaces WHERE namespace = %(namespace)s)
          FROM indexd.documents
         CROSS JOIN LATERAL (
                SELECT coalesce(half_life_seconds, %(half_life)s::float8) AS half_life
               ) AS effective
          LEFT JOIN indexd.relevance USING (namespace, doc_id)
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
        """,
        {
            "namespace": namespace,
            "doc_id": doc_id,
            "half_life": policy.half_life_seconds,
            "prior": PRIOR,
            "at": at,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise missing(namespace, doc_id)
    ingested_at, age, half_life, decay, relevance, irrelevant_since, documents = row
    place = await purge_rank.place(
        connection, namespace, policy, doc_id, documents=documents, at=at
    )
    return Lifecycle(
        doc_id=doc_id,
        namespace=namespace,
        ingested_at=ingested_at,
        age_seconds=age,
        half_life_seconds=half_life,
        decay_factor=decay,
        relevance=relevance if policy.semantic else 1.0,
        irrelevant_since=irrelevant_since,
        purge_rank=place.rank,
        would_be_forgotten=_removal(policy, place, ingested_at, at=at),
    )


def _removal(
    policy: Policy, place: Place, ingested_at: datetime, *, at: datetime
) -> Removal | None:
    """What the next upsert would do to it, else when its age will."""
    if place.reason is not None:
        return Removal(place.reason, at)
    if policy.max_age_seconds is None:
        return None
    expires = after(ingested_at, policy.max_age_seconds)
    return None if expires is None else Removal("ttl", expires)
