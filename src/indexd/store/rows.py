"""Rows of a statement as structs, by the names of their columns."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from psycopg.rows import class_row, scalar_row

from indexd.db.pipeline import read_within_transaction
from indexd.db.pool import Connection

T = TypeVar("T")


async def every(
    connection: Connection, kind: type[T], statement: str, values: Mapping[str, Any]
) -> list[T]:
    """All rows; each column is the field of its name."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


async def first(
    connection: Connection, kind: type[T], statement: str, values: Mapping[str, Any]
) -> T | None:
    """The first row, None where there is none."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchone()


async def prepared(
    session: Connection,
    kind: type[T],
    statement: str,
    values: Mapping[str, Any],
    settings: Sequence[str] = (),
) -> list[T]:
    """All rows of a statement that many requests run: PostgreSQL keeps it parsed.

    `settings` are set for the rest of the transaction, in the same round trip.
    """
    # A tracing cursor class supplies its own traced version.
    read = getattr(session.cursor_factory, "read_within_transaction", read_within_transaction)
    answer = await read(session, settings, statement, values)
    return [kind(**dict(zip(answer.columns, row, strict=True))) for row in answer.rows]


async def column(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Any]:
    """All values of a statement that answers one column."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


async def value(connection: Connection, statement: str, values: Mapping[str, Any]) -> Any:
    """The value of a statement that answers one row of one column, None where there is no row."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchone()
