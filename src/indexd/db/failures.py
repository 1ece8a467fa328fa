"""What an error of PostgreSQL means for the caller: told by its SQLSTATE."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import psycopg

from indexd.db.pipeline import UNPREPARED
from indexd.errors import (
    DatabaseFull,
    DatabasePrivilege,
    DatabaseReadOnly,
    DatabaseRefusal,
    DatabaseUnavailable,
    InvalidRequest,
    TookTooLong,
)

RETRIED = ("40001", "40P01", *UNPREPARED)
"""SQLSTATEs after which the transaction can be run again, among them serialization_failure and
deadlock_detected."""


class Collision(Exception):
    """The transaction lost against a concurrent one, or a prepared statement was not as known."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class ConnectionLost(DatabaseUnavailable):
    """The database went away; try again shortly."""


class NeverBegan(ConnectionLost):
    """The database went away; try again shortly."""


Means = Callable[[], Exception]

BAD_VALUE = partial(InvalidRequest, "the request holds a value that the database cannot take")

NO_TABLES = partial(DatabaseUnavailable, "the database has not the tables of this service")

TOO_LONG = partial(DatabaseUnavailable, "the transaction took longer than the database allows")

BY_STATE: Mapping[str, Means] = MappingProxyType(
    {
        "25006": DatabaseReadOnly,  # read_only_sql_transaction
        "25P03": TOO_LONG,  # idle_in_transaction_session_timeout
        "25P04": TOO_LONG,  # transaction_timeout
        "3F000": NO_TABLES,  # invalid_schema_name: being restored, or was never migrated
        "42501": DatabasePrivilege,  # insufficient_privilege
        "42P01": NO_TABLES,  # undefined_table: being restored, or was never migrated
        "53100": DatabaseFull,  # disk_full
        "53200": partial(DatabaseRefusal, "the database is out of memory; try again later"),
        "53300": partial(
            DatabaseRefusal,
            "the database has no connection left for the service; try again later",
        ),
        "53400": partial(
            DatabaseRefusal,
            "the statement needs more than a limit in the database's configuration allows",
        ),
        "55P03": partial(  # lock_not_available
            DatabaseUnavailable, "another request holds what this one changes; try again"
        ),
        "57014": partial(  # query_canceled
            TookTooLong, "the statement took longer than the server allows; try again"
        ),
    }
)
"""What one SQLSTATE means for the caller."""

BY_CLASS: Mapping[str, Means] = MappingProxyType(
    {
        "08": ConnectionLost,  # connection exception
        "22": BAD_VALUE,  # data exception: a value that passed our checks, but not PostgreSQL's
        "53": partial(DatabaseRefusal, "the database lacks a resource; try later"),
        "54": BAD_VALUE,  # program limit exceeded
        "57P": ConnectionLost,  # operator intervention: the server is starting or shutting down
        "58": partial(
            DatabaseUnavailable, "the database cannot get at its files; its log says more"
        ),
    }
)
"""What the other SQLSTATEs mean, by their first characters."""


def translated(error: psycopg.Error) -> Exception:
    """Translate an error of the database into one for clients; unknown ones are returned (500)."""
    state = error.sqlstate
    if state is None:
        return _of_the_driver(error)
    if state in RETRIED:
        return Collision(state)
    if state in BY_STATE:
        return BY_STATE[state]()
    return next((means() for start, means in BY_CLASS.items() if state.startswith(start)), error)


def _of_the_driver(error: psycopg.Error) -> Exception:
    """An error without SQLSTATE comes from the driver: mostly, the connection failed."""
    # The driver refused to send a value, such as a text with a NUL character.
    if isinstance(error, psycopg.DataError):
        return BAD_VALUE()
    return ConnectionLost() if isinstance(error, psycopg.OperationalError) else error
