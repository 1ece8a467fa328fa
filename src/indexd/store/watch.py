"""What an operator watches and no request tells: documents that are due, and the disk."""

from datetime import datetime

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.visible import live

COUNTED = 10_000
"""Documents of a namespace that are counted as expired at most; a higher count stops there."""


class Due(msgspec.Struct, frozen=True):
    """The documents of a namespace that its next upsert removes, by age and by number.

    `expired` are those past their own expiry or the age limit of the policy, `hidden` the former.
    """

    namespace: str
    expired: int
    hidden: int
    surplus: int


DUE = f"""
    /* indexd:watch.due */
    SELECT namespaces.namespace,
           aged.expired + own.hidden AS expired,
           own.hidden,
           coalesce(
               greatest(namespaces.documents - aged.expired - own.hidden - policy.max_items, 0), 0
           ) AS surplus
      FROM indexd.namespaces
      JOIN indexd.policies_in_force AS policy USING (namespace)
     CROSS JOIN LATERAL (
            SELECT count(*) AS expired
              FROM (
                    SELECT
                      FROM indexd.documents
                     WHERE documents.namespace = namespaces.namespace
                       AND documents.ingested_at < CASE
                               -- A longer age reaches beyond the first year of a timestamp.
                               WHEN policy.max_age_seconds < 6e10
                               THEN %(at)s::timestamptz
                                    - policy.max_age_seconds * interval '1 second'
                               ELSE '-infinity'
                           END
                       AND {live()}
                     LIMIT %(counted)s
                   ) AS old
           ) AS aged
     CROSS JOIN LATERAL (
            SELECT count(*) AS hidden
              FROM (
                    SELECT
                      FROM indexd.documents
                     WHERE documents.namespace = namespaces.namespace
                       AND documents.expires_at <= %(at)s::timestamptz
                     LIMIT %(counted)s
                   ) AS gone
           ) AS own
     WHERE namespaces.documents > 0
"""


async def due(connection: Connection, *, at: datetime) -> list[Due]:
    """Of every namespace that holds documents; two indexes find the expired ones."""
    return await rows.every(connection, Due, DUE, {"at": at, "counted": COUNTED})


DATA_DIRECTORY = """
    /* indexd:watch.data_directory */
    SELECT CASE
               WHEN pg_has_role('pg_read_all_settings', 'USAGE')
               THEN current_setting('data_directory')
           END AS data_directory
"""


async def data_directory(connection: Connection) -> str | None:
    """The folder of the database's files, None where the service's role may not know it."""
    found: str | None = await rows.value(connection, DATA_DIRECTORY, {})
    return found
