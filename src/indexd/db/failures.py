"""What an error of PostgreSQL means for the caller: told by its SQLSTATE."""

from collections.abc import Mapping
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
)

RETRIED = ("40001", "40P01", *UNPREPARED)
"""SQLSTATEs after which the transaction can be run again, among them serialization_failure and
deadlock_detected."""

RESOURCES: Mapping[str, str] = MappingProxyType(
    {
        "53200": "the database is out of memory; try again later",
        "53300": "the database has no connection left for the service; try again later",
        "53400": "the statement needs more than a limit in the database's configuration allows",
    }
)
"""Messages for the SQLSTATEs of class 53. Disk full (53100) is missing: it has an error class."""


class Collision(Exception):
    """The transaction lost against a concurrent one, or a prepared statement was not as known."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class ConnectionLost(DatabaseUnavailable):
    """The database went away; try again shortly."""


class NeverBegan(ConnectionLost):
    """The database went away; try again shortly."""


def translated(error: psycopg.Error) -> Exception:
    """Translate an error of the database into one for clients; unknown ones are returned (500)."""
    state = error.sqlstate
    if state is not None and state in RETRIED:
        return Collision(state)
    # An error without SQLSTATE comes from the driver: mostly, the connection failed.
    if state is None:
        # The driver refused to send a value, such as a text with a NUL character.
        if isinstance(error, psycopg.DataError):
            return InvalidRequest("the request holds a value that the database cannot take")
        return ConnectionLost() if isinstance(error, psycopg.OperationalError) else error
    # 08: connection exception, 57P: the server is starting or shutting down.
    if state.startswith(("08", "57P")):
        return ConnectionLost()
    if state == "25006":
        return DatabaseReadOnly()
    if state == "42501":
        return DatabasePrivilege()
    if state == "53100":
        return DatabaseFull()
    if state.startswith("53"):
        return DatabaseRefusal(RESOURCES.get(state, "the database lacks a resource; try later"))
    # idle_in_transaction_session_timeout, transaction_timeout
    if state in ("25P03", "25P04"):
        return DatabaseUnavailable("the transaction took longer than the database allows")
    if state == "55P03":
        return DatabaseUnavailable("another request holds what this one changes; try again")
    # 42P01 table, 3F000 schema is missing: the database is being restored, or was never migrated.
    if state in ("42P01", "3F000"):
        return DatabaseUnavailable("the database has not the tables of this service")
    # 58 system error: the server's files are missing or not readable.
    if state.startswith("58"):
        return DatabaseUnavailable("the database cannot get at its files; its log says more")
    if state == "57014":
        return DatabaseUnavailable("the statement took longer than the server allows; try again")
    # 22 data exception, 54 program limit: a value that passed our checks, but not PostgreSQL's.
    if state.startswith(("22", "54")):
        return InvalidRequest("the request holds a value that the database cannot take")
    return error
