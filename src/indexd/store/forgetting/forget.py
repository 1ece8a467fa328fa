"""Forgetting on request: by filter, or as planned by a dry run.

A forget is one transaction, however much it deletes: to every reader all of it is there or nothing.
Reading goes on meanwhile; so does writing other documents, but into a namespace with max_items,
where writers wait until it is done.
"""

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Meta

from indexd.db.pool import Connection
from indexd.store.filters import TAGGED
from indexd.store.forgetting import deletion
from indexd.store.forgetting.deletion import Cause, Departure

LISTED = 1_000
"""Documents named in an answer; the count is always whole."""


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which documents to forget: those that match all that is given. No namespace: all of them."""

    namespace: str | None = None
    older_than: datetime | None = None
    source_ref_origin: str | None = None
    source_ref_id: str | None = None
    doc_id: str | None = None
    tags: list[str] | None = None

    @property
    def is_everything(self) -> bool:
        """Nothing is said about the documents themselves."""
        return Condition(namespace=self.namespace) == self

    def logged(self) -> dict[str, Any]:
        """As it is kept in the log: what was given."""
        given: dict[str, Any] = msgspec.to_builtins(self)
        return given


class Named(msgspec.Struct, frozen=True):
    """One of the documents that a forget is about."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]


class Forgotten(msgspec.Struct, frozen=True):
    """What left: by number, the first LISTED by name, and one departure per namespace."""

    count: int
    documents: list[Named]
    departures: list[Departure]
    event_id: UUID | None


CONDEMNED = f"""
    SELECT doc_id, ingested_at, digest
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND (%(older_than)s::timestamptz  IS NULL OR ingested_at < %(older_than)s)
       AND (%(source_ref_origin)s::text  IS NULL OR source_ref_origin = %(source_ref_origin)s)
       AND (%(source_ref_id)s::text      IS NULL OR source_ref_id = %(source_ref_id)s)
       AND (%(doc_id)s::text             IS NULL OR doc_id = %(doc_id)s)
       AND (%(tags)s::text[]             IS NULL OR doc_id IN (
            SELECT doc_id
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND {TAGGED}
           ))
"""
"""The documents of one namespace that a condition is about: of a dry run and of a real one."""


async def forget(
    connection: Connection, condition: Condition, *, reason: str, actor: str, at: datetime
) -> Forgotten:
    """Remove all that match."""
    removal = Removal(Cause("manual", reason, actor, at, filter=condition.logged()))
    for namespace in await reached(connection, condition):
        await deletion.hold(connection, namespace)
        values = values_of(condition, namespace)
        cursor = await connection.execute(f"{CONDEMNED} ORDER BY doc_id FOR UPDATE", values)
        locked = {row[0]: row[1] for row in await cursor.fetchall()}
        if condition.tags is not None and locked:
            # Tags are those of chunks, which a writer may have replaced while its document's lock
            # was waited for: only a statement after that sees them.
            cursor = await connection.execute(
                f"{CONDEMNED} AND doc_id = ANY(%(locked)s) ORDER BY doc_id",
                values | {"locked": list(locked)},
            )
            locked = {row[0]: row[1] for row in await cursor.fetchall()}
        await removal.remove(connection, namespace, locked)
    return removal.forgotten


class Removal:
    """One event, namespace by namespace: each is done with before the next is touched.

    Every transaction takes its locks in this order, so that no two wait for each other.
    """

    def __init__(self, cause: Cause) -> None:
        self.cause = cause
        self.event_id = uuid4()
        self.departures: list[Departure] = []
        self.documents: list[Named] = []

    async def remove(
        self, connection: Connection, namespace: str, locked: Mapping[str, datetime]
    ) -> None:
        """Remove documents that are locked, given with their ingested_at."""
        departure = await deletion.remove(
            connection, namespace, list(locked), self.cause, event_id=self.event_id
        )
        if departure:
            self.departures.append(departure)
        self.documents += named(
            (doc_id, namespace, ingested_at) for doc_id, ingested_at in locked.items()
        )

    @property
    def forgotten(self) -> Forgotten:
        return Forgotten(
            count=sum(one.count for one in self.departures),
            documents=self.documents[:LISTED],
            departures=self.departures,
            event_id=self.event_id if self.departures else None,
        )


def named(rows: Iterable[tuple[str, str, datetime]]) -> list[Named]:
    """The first of them."""
    return [Named(*row) for row in itertools.islice(rows, LISTED)]


async def reached(connection: Connection, condition: Condition) -> list[str]:
    """The namespaces that a condition reaches; each is asked for itself."""
    if condition.namespace is not None:
        return [condition.namespace]
    cursor = await connection.execute(
        "SELECT namespace FROM indexd.namespaces WHERE documents > 0 ORDER BY namespace"
    )
    return [namespace for (namespace,) in await cursor.fetchall()]


def values_of(condition: Condition, namespace: str) -> dict[str, Any]:
    """What CONDEMNED takes."""
    return msgspec.structs.asdict(condition) | {"namespace": namespace}


async def delete(
    connection: Connection, namespace: str, doc_id: str, *, at: datetime, actor: str
) -> Departure | None:
    """Remove one document if it is there."""
    await deletion.hold(connection, namespace)
    locked = await deletion.lock(connection, namespace, [doc_id])
    cause = Cause(kind="delete", reason="deleted by request", actor=actor, at=at)
    return await deletion.remove(connection, namespace, list(locked), cause)
