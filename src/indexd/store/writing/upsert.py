"""Taking documents in: each whole or not at all, and not again what is there already.

What the namespace's retention takes leaves in the same transaction.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

import msgspec

from indexd import vectors
from indexd.clock import before
from indexd.db.pool import Connection
from indexd.errors import DimensionMismatch, ModelMismatch
from indexd.store.documents import Document
from indexd.store.forgetting import retention
from indexd.store.forgetting.deletion import Departure
from indexd.store.writing import versions
from indexd.store.writing.vector_space import Binding, bind
from indexd.store.writing.versions import Space, Stored, Version


class Written(msgspec.Struct, frozen=True):
    """What became of one document; with `refused` nothing did."""

    chunks: int
    unchanged: bool = False
    refused: DimensionMismatch | ModelMismatch | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of the documents, in their order, and what left to make room for them."""

    written: list[Written]
    departures: list[Departure]


async def upsert(connection: Connection, document: Document, *, at: datetime) -> Outcome:
    """Replace one document as a whole.

    Raises DimensionMismatch or ModelMismatch and changes nothing then.
    """
    outcome = await upsert_many(connection, [document], at=at)
    if outcome.written[0].refused:
        raise outcome.written[0].refused
    return outcome


async def upsert_many(
    connection: Connection, documents: Sequence[Document], *, at: datetime
) -> Outcome:
    """Replace documents, each as a whole, in the caller's transaction.

    No two may have the same namespace and doc_id. Those of a wrong dimension or model are refused,
    the others written. The outcome is that of writing them one by one: a document may be evicted by
    those after it, never by itself.
    """
    members = [
        Version(place, document, document.digest(), document.ingested_at or at)
        for place, document in enumerate(documents)
    ]
    # Every transaction takes its locks in the same order.
    members.sort(key=lambda version: (version.document.namespace, version.doc_id))
    written: dict[int, Written] = {}
    departures: list[Departure] = []
    for namespace, group in itertools.groupby(members, key=attrgetter("document.namespace")):
        outcomes, gone = await _upsert_into(connection, namespace, list(group), at=at)
        written |= outcomes
        departures += gone
    return Outcome([written[place] for place in range(len(documents))], departures)


async def _upsert_into(
    connection: Connection, namespace: str, members: Sequence[Version], *, at: datetime
) -> tuple[dict[int, Written], list[Departure]]:
    """Write one namespace's documents, sorted by doc_id; outcomes by their place."""
    # Where nothing binds the namespace yet, the first line does, and the first that names a model.
    bindings = [
        Binding(version.document.dimension, version.document.model)
        for version in sorted(members, key=attrgetter("place"))
    ]
    dimension = bindings[0].dimension
    bindings.sort(key=lambda binding: (binding.dimension != dimension, binding.model is None))
    binding = bindings[0]
    while True:
        fitting = [version for version in members if binding.takes(version.document)]
        space = await versions.claim(connection, namespace, binding, fitting, at=at)
        if space is not None:
            break
        binding = await bind(connection, namespace, binding, at=at)
        if binding.model is None:
            same = (other for other in bindings if other.dimension == binding.dimension)
            binding = next(same, binding)
    if len(fitting) > 1 and await _order_counts(connection, namespace, space, fitting, at=at):
        return await _one_by_one(connection, namespace, members, at=at)

    changed = [v for v in fitting if not v.is_stored_as(space.seen.get(v.doc_id))]
    replaced: dict[str, Stored] = {}
    if changed:
        changed, replaced = await _write(connection, namespace, changed, space.seen)
    rewritten = {version.doc_id for version in changed}
    outcomes = {
        version.place: Written(0, refused=_refusal(version.document, binding))
        if not binding.takes(version.document)
        else Written(len(version.document.chunks), unchanged=version.doc_id not in rewritten)
        for version in members
    }
    policy = space.policy
    if not fitting or (policy.max_items is None and policy.max_age_seconds is None):
        return outcomes, []
    departures = await retention.take(
        connection,
        namespace,
        policy,
        documents=space.documents + len(rewritten - replaced.keys()),
        at=at,
        protected=[max(fitting, key=attrgetter("place")).doc_id],
    )
    return outcomes, departures


async def _write(
    connection: Connection, namespace: str, changed: list[Version], seen: dict[str, Stored]
) -> tuple[list[Version], dict[str, Stored]]:
    """Write what changed, and the namespace's counts last: what was rewritten, and replaced what.

    Last, so that writers wait for one another only while they commit.
    """
    alone = len(changed) == 1 and changed[0].doc_id not in seen and versions.is_small(changed[0])
    if alone and await versions.insert_whole(connection, changed[0]):
        return changed, {}
    replaced = await versions.lock_or_insert(connection, namespace, changed, seen)
    changed = [v for v in changed if not v.is_stored_as(replaced.get(v.doc_id))]
    if not changed:
        return [], replaced
    again = [v for v in changed if v.doc_id in replaced]
    new = [v.doc_id for v in changed if v.doc_id not in replaced]
    if again:
        await versions.make_room(connection, namespace, again)
    orphans = await versions.clear_orphans(connection, namespace, new) if new else {}
    await versions.write_chunks(connection, namespace, changed)
    removed = sum(replaced[v.doc_id].chunk_count for v in again) + sum(orphans.values())
    await versions.grow(
        connection,
        namespace,
        # A document whose row was deleted by hand is counted still.
        documents=len(new) - len(orphans),
        chunks=sum(len(v.document.chunks) for v in changed) - removed,
        replaced=removed,
    )
    return changed, replaced


async def _order_counts(
    connection: Connection,
    namespace: str,
    space: Space,
    fitting: Sequence[Version],
    *,
    at: datetime,
) -> bool:
    """Whether writing these at once could end otherwise than one by one.

    Only where one that is there already may be evicted before its own turn comes.
    """
    policy, known = space.policy, len(space.seen)
    if not known:
        return False
    if policy.max_items is not None and space.documents + len(fitting) - known > policy.max_items:
        return True
    if policy.max_age_seconds is None:
        return False
    limit = before(at, policy.max_age_seconds)
    return any(version.ingested_at < limit for version in fitting) or await versions.any_older(
        connection, namespace, limit
    )


async def _one_by_one(
    connection: Connection, namespace: str, members: Sequence[Version], *, at: datetime
) -> tuple[dict[int, Written], list[Departure]]:
    written: dict[int, Written] = {}
    departures: list[Departure] = []
    for version in sorted(members, key=attrgetter("place")):
        outcomes, gone = await _upsert_into(connection, namespace, [version], at=at)
        written |= outcomes
        departures += gone
    return written, departures


def _refusal(document: Document, binding: Binding) -> DimensionMismatch | ModelMismatch:
    where = f"chunk {document.chunks[0].chunk_id!r}"
    if binding.model and document.model and not binding.model.agrees_with(document.model):
        return vectors.other_model(where, document.namespace, binding.model, document.model)
    return vectors.mismatch(where, binding.dimension, document.dimension)
