"""The log of everything forgotten: newest first, page by page. It holds no text and no vector."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.forgetting.deletion import Kind


class Event(msgspec.Struct, frozen=True):
    """What left one namespace at once; a forget that reached several has one event_id in each."""

    event_id: Annotated[
        UUID,
        Meta(description="Id of the event; a forget of several namespaces has it in each"),
    ]
    at: Annotated[datetime, Meta(description="Time it happened, UTC")]
    reason: Annotated[str, Meta(description="Why, as the client said; or the rule of retention")]
    kind: Annotated[
        Kind,
        Meta(description="Who removed them: a request (`manual`, `delete`), else retention"),
    ]
    namespace: Annotated[str, Meta(description="Namespace that the documents were in")]
    filter: Annotated[
        dict[str, Any] | None, Meta(description="Filter of the request; null where there was none")
    ]
    strategy: Annotated[
        str | None, Meta(description="Rule that chose the documents, where retention did")
    ]
    forgotten_count: Annotated[int, Meta(description="Documents that left")]
    actor: Annotated[
        str,
        Meta(description="Name of the key that asked, `anonymous`, or `retention`"),
    ]


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The key of the last event of a page."""

    at: datetime
    event_id: UUID
    namespace: str


EVENTS = """
    /* indexd:forgetting.audit.events */
    SELECT event_id, at, reason, kind, namespace, filter, strategy, forgotten_count, actor
      FROM indexd.forget_events
     WHERE (
            -- Without the end of a page before it, this is the first page.
            %(at)s::timestamptz IS NULL
            OR (at, event_id, namespace)
             < (%(at)s::timestamptz, %(event_id)s::uuid, %(namespace)s::text)
           )
       AND (%(namespaces)s::text[] IS NULL OR namespace = ANY(%(namespaces)s))
     ORDER BY at DESC, event_id DESC, namespace DESC
     LIMIT %(limit)s
"""


async def events(
    connection: Connection,
    *,
    limit: int,
    after: PageEnd | None = None,
    namespaces: Sequence[str] | None = None,
) -> list[Event]:
    """The events that follow the end of a page, newest first; `namespaces` None is all."""
    return await rows.every(
        connection,
        Event,
        EVENTS,
        {
            "at": after and after.at,
            "event_id": after and after.event_id,
            "namespace": after and after.namespace,
            "namespaces": None if namespaces is None else list(namespaces),
            "limit": limit,
        },
    )
