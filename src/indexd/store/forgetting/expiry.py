"""Documents that have a time of their own to leave: hidden from then on, removed by upserts.

The namespace's next upsert removes all of them, as kind `ttl`, before it writes anything.
"""

from collections.abc import Sequence
from datetime import datetime

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.forgetting import deletion
from indexd.store.forgetting.deletion import Cause, Deletion
from indexd.store.visible import live

LOCK = """
    /* indexd:forgetting.expiry.lock */
    SELECT doc_id
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND expires_at <= %(at)s
       AND (%(doc_ids)s::text[] IS NULL OR doc_id = ANY(%(doc_ids)s))
     ORDER BY doc_id
       FOR UPDATE
"""

ALL_EXPIRED = f"""
    /* indexd:forgetting.expiry.all_expired */
    SELECT EXISTS (
            SELECT
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND expires_at <= %(at)s
           )
       AND NOT EXISTS (
            SELECT
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND {live()}
           ) AS all_expired
"""


async def remove(
    connection: Connection,
    namespace: str,
    *,
    at: datetime,
    actor: str,
    doc_ids: Sequence[str] | None = None,
) -> Deletion | None:
    """Remove the documents that expired, all of the namespace or those among `doc_ids`.

    None where there is none. Locks: the rows of the documents by doc_id, then the namespace's row
    for its counters. One whose expiry was changed while its lock was waited for stays.
    """
    values = {
        "namespace": namespace,
        "at": at,
        "doc_ids": None if doc_ids is None else list(doc_ids),
    }
    locked = await rows.column(connection, LOCK, values)
    cause = Cause("ttl", "its own expiry has passed", actor, at, strategy="ttl")
    return await deletion.remove(connection, namespace, locked, cause)


async def all_expired(connection: Connection, namespace: str, *, at: datetime) -> bool:
    """Whether the namespace holds documents, and all of them have expired."""
    return bool(await rows.value(connection, ALL_EXPIRED, {"namespace": namespace, "at": at}))
