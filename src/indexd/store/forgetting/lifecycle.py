"""How far a document has faded, and which rule would remove it when."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from indexd.clock import after
from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store import policies, rows
from indexd.store.documents import missing
from indexd.store.forgetting import purge_rank
from indexd.store.forgetting.purge_rank import PurgeRank
from indexd.store.forgetting.relevance import PRIOR
from indexd.store.forgetting.retention import NamespaceUnderPolicy, Reason


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
        Meta(
            description="Place in the order of removal, from 1; null without `max_items`, and once "
            "the document has expired"
        ),
    ]
    expires_at: Annotated[
        datetime | None,
        Meta(description="Time from which the document is hidden, UTC; null: never"),
    ]
    would_be_forgotten: Annotated[
        Removal | None, Meta(description="Next rule to remove the document; null if none will")
    ]


class _Faded(msgspec.Struct, frozen=True):
    """`documents` is the number of documents in the namespace that have not expired."""

    ingested_at: datetime
    age_seconds: float
    half_life_seconds: float | None
    decay_factor: float
    relevance: float
    irrelevant_since: datetime | None
    expires_at: datetime | None
    documents: int


FADED = """
    /* indexd:forgetting.lifecycle.faded */
    SELECT ingested_at,
           greatest(date_part('epoch', %(at)s - ingested_at), 0) AS age_seconds,
           half_life AS half_life_seconds,
           indexd.decay(ingested_at, half_life, %(at)s) AS decay_factor,
           coalesce(smoothed_score, %(prior)s) AS relevance,
           irrelevant_since,
           expires_at,
           (SELECT documents FROM indexd.namespaces WHERE namespace = %(namespace)s)
           - (
                SELECT count(*)
                  FROM indexd.documents AS expired
                 WHERE expired.namespace = %(namespace)s
                   AND expired.expires_at <= %(at)s
           ) AS documents
      FROM indexd.documents
     CROSS JOIN LATERAL (
            SELECT coalesce(half_life_seconds, %(half_life)s::float8) AS half_life
           ) AS effective
      LEFT JOIN indexd.relevance USING (namespace, doc_id)
     WHERE namespace = %(namespace)s
       AND doc_id = %(doc_id)s
"""


async def lifecycle(
    connection: Connection, namespace: str, doc_id: str, *, at: datetime
) -> Lifecycle:
    """How far a document has faded, and which rule would remove it when. Raises NotFound."""
    policy = await policies.of(connection, namespace)
    found = await rows.first(
        connection,
        _Faded,
        FADED,
        {
            "namespace": namespace,
            "doc_id": doc_id,
            "half_life": policy.half_life_seconds,
            "prior": PRIOR,
            "at": at,
        },
    )
    if found is None:
        raise missing(namespace, doc_id)
    state = NamespaceUnderPolicy(namespace, policy, found.documents, at)
    place = await purge_rank.rank_of(connection, state, doc_id)
    return Lifecycle(
        doc_id=doc_id,
        namespace=namespace,
        ingested_at=found.ingested_at,
        age_seconds=found.age_seconds,
        half_life_seconds=found.half_life_seconds,
        decay_factor=found.decay_factor,
        relevance=found.relevance if policy.semantic else 1.0,
        irrelevant_since=found.irrelevant_since,
        purge_rank=place.rank,
        expires_at=found.expires_at,
        would_be_forgotten=_removal(policy, place, found, at=at),
    )


def _removal(policy: Policy, place: PurgeRank, found: _Faded, *, at: datetime) -> Removal | None:
    """The removal by the next upsert, else the one that is due first by expiry or age."""
    if place.reason is not None:
        return Removal(place.reason, at)
    aged = None
    if policy.max_age_seconds is not None:
        aged = after(found.ingested_at, policy.max_age_seconds)
    due = [moment for moment in (found.expires_at, aged) if moment is not None]
    return Removal("ttl", min(due)) if due else None
