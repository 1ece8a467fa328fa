"""Storing documents: each as a whole or not at all, and only if its content changed.

The documents that the namespace's retention removes leave in the same transaction.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from indexd import vectors
from indexd.clock import before
from indexd.db.pool import Connection
from indexd.errors import Conflict, DimensionMismatch, ModelMismatch
from indexd.store.documents import Document
from indexd.store.forgetting import expiry, retention
from indexd.store.forgetting.deletion import Deletion
from indexd.store.forgetting.retention import NamespaceUnderPolicy
from indexd.store.writing import chunk_rows, document_rows, namespace_rows
from indexd.store.writing.document_rows import DocumentRow, StoredRow, Verdict
from indexd.store.writing.namespace_rows import ClaimedNamespace
from indexd.store.writing.vector_space import VectorSpace, settle, shut_out_writers


class Written(msgspec.Struct, frozen=True):
    """The outcome for one document; where `refused` is given, nothing was changed.

    `unchanged` says that the content was stored already: at most its expiry is new. `chunks`
    and `version` are those that are stored now; `skipped` says that the client wanted what was
    stored to stay.
    """

    chunks: int
    unchanged: bool = False
    refused: DimensionMismatch | ModelMismatch | Conflict | None = None
    version: int = 0
    skipped: bool = False


class Upserted(msgspec.Struct, frozen=True):
    """The outcome for each document, in their order, and what retention deleted."""

    written: list[Written]
    deletions: list[Deletion]


async def upsert(connection: Connection, document: Document, *, at: datetime) -> Upserted:
    """Replace one document as a whole, in the caller's transaction.

    Atomic, and with the locks of `upsert_many`. Raises DimensionMismatch, ModelMismatch or
    Conflict, and changes nothing then, and WritesPaused.
    """
    outcome = await upsert_many(connection, [document], at=at)
    if outcome.written[0].refused:
        raise outcome.written[0].refused
    return outcome


async def upsert_many(
    connection: Connection, documents: Sequence[Document], *, at: datetime
) -> Upserted:
    """Replace documents, each as a whole, in the caller's transaction.

    No two may have the same namespace and doc_id. Those of a wrong dimension or model are refused,
    and those whose `on_conflict` or `if_version` does not hold; the others are written. The outcome
    is that of writing them one by one: retention may remove a document in favour of those after it,
    never in favour of itself.

    Atomic: all of it, with what retention removes. Locks: the namespaces come by name, and in each
    the order is

        the namespace's row     shared with other writers; alone where the policy has max_items, or
                                where the namespace gets its vector space
        expired documents       as `expiry.remove` says, where the namespace has some
        the documents' rows     by doc_id, of those that exist and those that are inserted
        the namespace's row     to change its counters: last, so that writers wait for one another
                                only while they commit
        retention's documents   as `retention.enforce` says

    Raises WritesPaused; the caller's transaction must end with it.
    """
    members = [
        DocumentRow(place, document, document.digest(), document.ingested_at or at, at)
        for place, document in enumerate(documents)
    ]
    # Every transaction takes its locks in the same order.
    members.sort(key=lambda row: (row.document.namespace, row.doc_id))
    written: dict[int, Written] = {}
    deletions: list[Deletion] = []
    for namespace, group in itertools.groupby(members, key=attrgetter("document.namespace")):
        outcomes, gone = await _upsert_into(connection, namespace, list(group), at=at)
        written |= outcomes
        deletions += gone
    return Upserted([written[place] for place in range(len(documents))], deletions)


async def _upsert_into(
    connection: Connection, namespace: str, members: Sequence[DocumentRow], *, at: datetime
) -> tuple[dict[int, Written], list[Deletion]]:
    """Write one namespace's documents, sorted by doc_id; outcomes by their place."""
    gone: list[Deletion] = []
    space, fitting, claimed = await _claim(connection, namespace, members, gone, at=at)
    if claimed.any_expired and _any_taken(fitting, claimed):
        claimed, expired = await _without_expired(connection, namespace, claimed, at=at)
        gone += expired
    if len(fitting) > 1 and await _order_matters(connection, namespace, claimed, fitting, at=at):
        written, later = await _one_by_one(connection, namespace, members, at=at)
        return written, gone + later

    outcomes = {
        row.place: Written(0, refused=_refusal(row.document, space))
        for row in members
        if not space.accepts(row.document)
    }
    changed = []
    for row in fitting:
        stored = claimed.stored.get(row.doc_id)
        if (verdict := row.verdict(stored)) in ("write", "renew"):
            changed.append(row)
        else:
            outcomes[row.place] = _unwritten(verdict, stored)
    added = 0
    if changed:
        written, added = await _write(connection, namespace, changed, claimed)
        outcomes |= written
    fitting = [row for row in fitting if not outcomes[row.place].refused]
    policy = claimed.policy
    if not fitting or (policy.max_items is None and policy.max_age_seconds is None):
        return outcomes, gone
    # One that is hidden already takes nobody's place.
    hidden = sum(row.is_hidden for row in fitting)
    documents = claimed.documents + added - hidden
    deletions = await retention.enforce(
        connection,
        NamespaceUnderPolicy(namespace, policy, documents, at),
        protected=[max(fitting, key=attrgetter("place")).doc_id],
    )
    return outcomes, gone + deletions


def _any_taken(fitting: Sequence[DocumentRow], claimed: ClaimedNamespace) -> bool:
    """Whether one of the documents is not refused; a refused write removes nothing."""
    return any(
        not isinstance(row.verdict(claimed.stored.get(row.doc_id)), Conflict) for row in fitting
    )


async def _without_expired(
    connection: Connection, namespace: str, claimed: ClaimedNamespace, *, at: datetime
) -> tuple[ClaimedNamespace, list[Deletion]]:
    """Remove all documents of the namespace that expired; returns what is left of it."""
    removed = await expiry.remove(connection, namespace, at=at, actor=retention.ACTOR)
    left = replace(
        claimed,
        documents=claimed.documents - (removed.count if removed else 0),
        stored={key: row for key, row in claimed.stored.items() if not row.has_expired(at)},
        any_expired=False,
    )
    return left, [removed] if removed else []


async def _claim(
    connection: Connection,
    namespace: str,
    members: Sequence[DocumentRow],
    gone: list[Deletion],
    *,
    at: datetime,
) -> tuple[VectorSpace, list[DocumentRow], ClaimedNamespace]:
    """Lock the namespace; returns its vector space, and the documents that it accepts.

    A namespace of another vector space whose documents have all expired takes a new one: then they
    are removed, and the deletion is added to `gone`.
    """
    # A namespace without a vector space gets that of the first document with vectors that was sent,
    # and the first model that is named with its dimension. One without vectors fixes nothing, and
    # vectors of the embedder that comes along yield to those that clients sent.
    sent = [
        VectorSpace(row.document.dimension, row.document.model, row.document.is_weak)
        for row in sorted(members, key=attrgetter("place"))
        if row.document.dimension is not None
    ] or [VectorSpace(None, None)]
    sent.sort(key=attrgetter("is_weak"))
    dimension = sent[0].dimension
    sent.sort(key=lambda one: (one.is_weak, one.dimension != dimension, one.model is None))
    space = sent[0]
    while True:
        fitting = [row for row in members if space.accepts(row.document)]
        claimed = await namespace_rows.claim(
            connection, namespace, space, [row.doc_id for row in fitting], at=at
        )
        if claimed is not None:
            return space, fitting, claimed
        if await expiry.all_expired(connection, namespace, at=at):
            await shut_out_writers(connection, namespace)
            removed = await expiry.remove(connection, namespace, at=at, actor=retention.ACTOR)
            gone += [removed] if removed else []
        space = await settle(connection, namespace, space, at=at)
        if space.model is None:
            same = (other for other in sent if other.dimension == space.dimension)
            space = next(same, space)


async def _write(
    connection: Connection,
    namespace: str,
    changed: list[DocumentRow],
    claimed: ClaimedNamespace,
) -> tuple[dict[int, Written], int]:
    """Write changed documents, and the namespace's counters last.

    Returns the outcomes by their place, and how many documents there are more.
    """
    seen, generation = claimed.stored, claimed.generation
    [first, *others] = changed
    alone = not others and first.doc_id not in seen and chunk_rows.is_small(first)
    if alone and first.may_insert:
        version = await chunk_rows.insert_whole(connection, first, generation)
        if version is not None:
            return {first.place: Written(len(first.document.chunks), version=version)}, 1
    replaced, versions = await document_rows.lock_or_insert(connection, namespace, changed, seen)
    expected = [
        replaced[row.doc_id]
        for row in changed
        if row.doc_id in replaced and row.document.if_version is not None
    ]
    twice = await document_rows.returned(connection, namespace, expected) if expected else set()
    outcomes: dict[int, Written] = {}
    renewed: list[DocumentRow] = []
    again: list[DocumentRow] = []
    new: list[DocumentRow] = []
    for row in changed:
        stored = replaced.get(row.doc_id)
        verdict = "write" if row.doc_id in versions else row.verdict(stored)
        if stored is not None and row.doc_id in twice:
            verdict = document_rows.conflict(row.document, stored.version)
        if verdict not in ("write", "renew"):
            outcomes[row.place] = _unwritten(verdict, stored)
            continue
        if verdict == "renew" and stored is not None:
            outcomes[row.place] = Written(stored.chunk_count, True, version=stored.version + 1)
            renewed.append(row)
            continue
        version = versions[row.doc_id] if stored is None else stored.version + 1
        outcomes[row.place] = Written(len(row.document.chunks), version=version)
        (new if stored is None else again).append(row)
    if renewed:
        await document_rows.renew(connection, namespace, renewed)
    if again or new:
        await _write_rows(connection, namespace, again, new, replaced, generation)
    return outcomes, len(new)


def _unwritten(verdict: Verdict, stored: StoredRow | None) -> Written:
    """The outcome for a document that is not written."""
    if isinstance(verdict, Conflict):
        return Written(0, refused=verdict)
    assert stored is not None  # noqa: S101 (what is not stored is written or refused)
    return Written(
        stored.chunk_count,
        unchanged=verdict == "keep",
        version=stored.version,
        skipped=verdict == "skip",
    )


async def _write_rows(
    connection: Connection,
    namespace: str,
    again: list[DocumentRow],
    inserted: list[DocumentRow],
    replaced: dict[str, StoredRow],
    generation: int,
) -> None:
    """Write the chunks of documents whose rows are locked, and count them."""
    changed = sorted((*again, *inserted), key=attrgetter("doc_id"))
    new = [row.doc_id for row in inserted]
    if again:
        await document_rows.replace_rows(connection, namespace, again)
    orphans = await chunk_rows.clear_orphans(connection, namespace, new) if new else {}
    average = await chunk_rows.write_chunks(connection, namespace, changed, generation)
    removed = sum(replaced[row.doc_id].chunk_count for row in again) + sum(orphans.values())
    await namespace_rows.add_counts(
        connection,
        namespace,
        # A document whose row was deleted by hand is counted still.
        documents=len(new) - len(orphans),
        chunks=sum(len(row.document.chunks) for row in changed) - removed,
        removed=removed,
        average=average,
    )


async def _order_matters(
    connection: Connection,
    namespace: str,
    claimed: ClaimedNamespace,
    fitting: Sequence[DocumentRow],
    *,
    at: datetime,
) -> bool:
    """Whether writing these at once could end otherwise than writing them one by one.

    Only where retention may remove one that exists already before its own turn comes, or where one
    that is hidden already is removed by those after it.
    """
    if any(row.is_hidden for row in fitting):
        return True
    policy, known = claimed.policy, len(claimed.stored)
    if not known:
        return False
    if policy.max_items is not None and claimed.documents + len(fitting) - known > policy.max_items:
        return True
    if policy.max_age_seconds is None:
        return False
    limit = before(at, policy.max_age_seconds)
    return any(row.ingested_at < limit for row in fitting) or await document_rows.any_older(
        connection, namespace, limit
    )


async def _one_by_one(
    connection: Connection, namespace: str, members: Sequence[DocumentRow], *, at: datetime
) -> tuple[dict[int, Written], list[Deletion]]:
    written: dict[int, Written] = {}
    deletions: list[Deletion] = []
    for row in sorted(members, key=attrgetter("place")):
        outcomes, gone = await _upsert_into(connection, namespace, [row], at=at)
        written |= outcomes
        deletions += gone
    return written, deletions


def _refusal(document: Document, space: VectorSpace) -> DimensionMismatch | ModelMismatch:
    first = next(chunk for chunk in document.chunks if chunk.embedding is not None)
    where = f"chunk {first.chunk_id!r}"
    if space.model and document.model and not space.model.agrees_with(document.model):
        return vectors.other_model(where, document.namespace, space.model, document.model)
    assert space.dimension is not None and document.dimension is not None  # noqa: S101, PT018
    return vectors.mismatch(where, space.dimension, document.dimension)
