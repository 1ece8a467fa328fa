"""Forgetting on request: by a condition, or as planned by a dry run (`plans`).

A forget is one transaction, however many documents it deletes: a reader sees all of them or none.
Searches go on meanwhile, and so do writes of other documents. Only in a namespace with max_items do
writers wait until the forget is done.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Meta

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.filters import TAGGED
from indexd.store.forgetting import deletion, expiry
from indexd.store.forgetting.deletion import Cause, Deletion
from indexd.store.where.conditions import document_condition, parameters
from indexd.store.where.tree import parse

LISTED = 1_000
"""Documents that an answer names; its count is of all of them."""


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which documents to forget: those that match all fields that are given.

    Without a namespace it reaches all namespaces. `where` is a tree as it was sent, and checked.
    """

    namespace: str | None = None
    older_than: datetime | None = None
    source_ref_origin: str | None = None
    source_ref_id: str | None = None
    doc_id: str | None = None
    tags: list[str] | None = None
    where: dict[str, Any] | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no field but the namespace is given."""
        return Condition(namespace=self.namespace) == self

    @property
    def is_where_alone(self) -> bool:
        """Whether a tree is all that is given, but for the namespace."""
        return self.where is not None and Condition(self.namespace, where=self.where) == self

    def logged(self) -> dict[str, Any]:
        """The fields that are given, as the log keeps them."""
        given: dict[str, Any] = msgspec.to_builtins(self)
        return given


class Named(msgspec.Struct, frozen=True):
    """One of the documents that a forget is about."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]


class Forgotten(msgspec.Struct, frozen=True):
    """What left: the number of documents, the first LISTED of them, one deletion per namespace."""

    count: int
    documents: list[Named]
    deletions: list[Deletion]
    event_id: UUID | None


_CONDEMNED = f"""
    SELECT doc_id, ingested_at, digest, version
      FROM indexd.documents AS document
     WHERE namespace = %(namespace)s
       -- A field that the request does not give is NULL: then every document passes.
       AND (%(older_than)s::timestamptz IS NULL OR ingested_at < %(older_than)s)
       AND (%(source_ref_origin)s::text IS NULL OR source_ref_origin = %(source_ref_origin)s)
       AND (%(source_ref_id)s::text     IS NULL OR source_ref_id = %(source_ref_id)s)
       AND (%(doc_id)s::text            IS NULL OR doc_id = %(doc_id)s)
       -- A document's own tags are those of each of its chunks; one tagged chunk condemns it, too.
       AND (%(tags)s::text[]            IS NULL OR doc_id IN (
            SELECT fields.doc_id
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND {TAGGED}
           ))
"""


def condemned(condition: Condition) -> str:
    """SQL: the documents of one namespace that a condition is about, in both kinds of run."""
    if condition.where is None:
        return _CONDEMNED
    return f"{_CONDEMNED}       AND {document_condition(parse(condition.where))}\n"


def lock_statement(condition: Condition) -> str:
    """SQL: lock and answer them."""
    return f"""
    /* indexd:forgetting.forget.lock */
    {condemned(condition)}
     ORDER BY doc_id
       FOR UPDATE
"""


def still_condemned_statement(condition: Condition) -> str:
    """SQL: those of some locked documents that the condition is still about."""
    return f"""
    /* indexd:forgetting.forget.still_condemned */
    {condemned(condition)}
       AND doc_id = ANY(%(locked)s)
     ORDER BY doc_id
"""


class _Condemned(msgspec.Struct, frozen=True):
    doc_id: str
    ingested_at: datetime
    digest: bytes
    version: int


async def forget(
    connection: Connection, condition: Condition, *, reason: str, actor: str, at: datetime
) -> Forgotten:
    """Delete all documents that match the condition, and log them as one event.

    Atomic: it runs in the caller's transaction, over all namespaces that the condition reaches.
    Locks: the namespaces come by name; in each, its row first where the policy has max_items, then
    the rows of the documents by doc_id, then its row for the counters. They are held until the
    caller's transaction ends. Where no document matches, nothing is logged and `event_id` is None.
    It raises no error of its own; PostgreSQL's (a timeout, a deadlock) leave everything in place.
    """
    event = ForgetEvent(Cause("manual", reason, actor, at, filter=condition.logged()))
    for namespace in await reached(connection, condition):
        await deletion.hold(connection, namespace)
        values = condition_values(condition, namespace)
        found = await rows.every(connection, _Condemned, lock_statement(condition), values)
        if (condition.tags, condition.where) != (None, None) and found:
            # A writer may have replaced the chunks, and with them tags and meta, while this waited
            # for the document's lock. Only a later statement sees the new ones.
            found = await rows.every(
                connection,
                _Condemned,
                still_condemned_statement(condition),
                values | {"locked": [one.doc_id for one in found]},
            )
        await event.remove(connection, namespace, {one.doc_id: one.ingested_at for one in found})
    return event.forgotten


class ForgetEvent:
    """One event over several namespaces: each is done before the next one is touched.

    Callers take the namespaces by name, so that no two transactions wait for each other.
    """

    def __init__(self, cause: Cause) -> None:
        self.cause = cause
        self.event_id = uuid4()
        self.deletions: list[Deletion] = []
        self.documents: list[Named] = []

    async def remove(
        self, connection: Connection, namespace: str, locked: Mapping[str, datetime]
    ) -> None:
        """Delete documents that the caller has locked, given with their ingested_at."""
        deleted = await deletion.remove(
            connection, namespace, list(locked), self.cause, event_id=self.event_id
        )
        if deleted:
            self.deletions.append(deleted)
        self.documents += first_named(
            Named(doc_id, namespace, ingested_at) for doc_id, ingested_at in locked.items()
        )

    @property
    def forgotten(self) -> Forgotten:
        return Forgotten(
            count=sum(one.count for one in self.deletions),
            documents=self.documents[:LISTED],
            deletions=self.deletions,
            event_id=self.event_id if self.deletions else None,
        )


def first_named(documents: Iterable[Named]) -> list[Named]:
    """The first LISTED of them."""
    return list(itertools.islice(documents, LISTED))


REACHED = """
    /* indexd:forgetting.forget.reached */
    SELECT namespace
      FROM indexd.namespaces
     WHERE documents > 0
     ORDER BY namespace
"""


async def reached(connection: Connection, condition: Condition) -> list[str]:
    """The namespaces that a condition reaches, by name."""
    if condition.namespace is not None:
        return [condition.namespace]
    return await rows.column(connection, REACHED, {})


def condition_values(condition: Condition, namespace: str) -> dict[str, Any]:
    """The values that `condemned` names."""
    values = msgspec.structs.asdict(condition) | {"namespace": namespace}
    where = values.pop("where")
    return values if where is None else values | parameters(parse(where))


async def delete(
    connection: Connection, namespace: str, doc_id: str, *, at: datetime, actor: str
) -> tuple[list[Deletion], set[str]]:
    """Delete one document, as `delete_many`."""
    cause = Cause(kind="delete", reason=BY_REQUEST, actor=actor, at=at)
    return await delete_many(connection, namespace, [doc_id], cause)


BY_REQUEST = "deleted by request"
"""The reason in the log where the client gave none."""


async def delete_many(
    connection: Connection, namespace: str, doc_ids: Sequence[str], cause: Cause
) -> tuple[list[Deletion], set[str]]:
    """Delete documents by their ids, with the locks of `forget`, as one event.

    Those that have expired are not there: they leave as an event of their own, of kind `ttl`.
    Returns the events, and the ids that were stored.
    """
    await deletion.hold(connection, namespace)
    locked = await deletion.lock(connection, namespace, doc_ids)
    expired = await expiry.remove(
        connection, namespace, at=cause.at, actor=cause.actor, doc_ids=list(locked)
    )
    if expired:
        locked = await deletion.lock(connection, namespace, doc_ids)
    deleted = await deletion.remove(connection, namespace, list(locked), cause)
    return [one for one in (expired, deleted) if one is not None], set(locked)
