"""Rows of a statement as structs, by the names of their columns."""

from collections.abc import Mapping
from typing import Any, TypeVar

from psycopg.rows import class_row

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
