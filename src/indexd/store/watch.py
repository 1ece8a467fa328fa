"""What an operator watches and no request says: documents that are due, indexes, the disk."""

from datetime import datetime

import msgspec

from indexd.db.pool import Connection

COUNTED = 10_000
"""Documents of a namespace that are counted as expired; with more there are at least so many."""


class Due(msgspec.Struct, frozen=True):
    """How many documents of a namespace its next upsert takes, by age and by number."""

    namespace: str
    expired: int
    surplus: int


async def due(connection: Connection, *, at: datetime) -> list[Due]:
    """Of every namespace that holds documents; its index on ingested_at finds the expired ones."""
    cursor = await connection.execute(
        """
        SELECT namespaces.namespace,
               aged.expired,
               coalesce(greatest(namespaces.documents - aged.expired - policy.max_items, 0), 0)
          FROM indexd.namespaces
          JOIN indexd.policies_in_force AS policy USING (namespace)
         CROSS JOIN LATERAL (
                SELECT count(*) AS expired
                  FROM (
                        SELECT
                          FROM indexd.documents
                         WHERE documents.namespace = namespaces.namespace
                           AND documents.ingested_at < CASE
                                   -- Longer ages lie before the first year there is.
                                   WHEN policy.max_age_seconds < 6e10
                                   THEN %(at)s::timestamptz
                                        - policy.max_age_seconds * interval '1 second'
                                   ELSE '-infinity'
                               END
                         LIMIT %(counted)s
                       ) AS old
               ) AS aged
         WHERE namespaces.documents > 0
        """,
        {"at": at, "counted": COUNTED},
    )
    return [Due(*row) for row in await cursor.fetchall()]


async def data_directory(connection: Connection) -> str | None:
    """Where the database keeps its files, if the service's role may know."""
    cursor = await connection.execute("""
        SELECT CASE
                   WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                   THEN current_setting('data_directory')
               END
    """)
    row = await cursor.fetchone()
    return row[0] if row else None
