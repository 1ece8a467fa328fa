"""What a command prints about an error of the database."""

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError

NOT_MIGRATED = (
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
)
"""Errors of the database that a missing migration causes."""


def said(error: BaseException) -> str | None:
    """One line about an error of the database, None for any other error."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    elif not isinstance(error, DBAPIError | psycopg.Error):
        return None
    # Only the first line: the others can hold values of a row.
    [first, *_] = str(error).splitlines() or [type(error).__name__]
    return f"{first}: run `indexd db upgrade`" if isinstance(error, NOT_MIGRATED) else first
