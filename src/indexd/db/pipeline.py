"""Prepared reads by the pipeline mode of libpq: settings and a statement in one round trip.

    read_in_one_round_trip     in a transaction of their own
    read_within_transaction    in the caller's transaction

psycopg has a pipeline mode too. Its bookkeeping per command takes 0.35 ms of CPU; everything else
that a plain search does outside PostgreSQL takes 0.2 ms. So this module uses `psycopg.generators`
and `psycopg.adapt.Transformer`, which psycopg does not document and may change between releases.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from psycopg import abc, capabilities, errors, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

from indexd.db.sessions import Connection, Session, Shape

UNPREPARED = ("26000", "42P05")
"""SQLSTATEs of a prepared statement that is missing or exists already."""

MOST_PREPARED = 100
"""Number of prepared statements per connection: each takes about 100 kB of the server's memory."""


class Answer(NamedTuple):
    """The names of the columns, and the rows."""

    columns: Sequence[str]
    rows: list[TupleRow]


async def read_in_one_round_trip(
    session: Session, settings: Sequence[str], statement: str, values: Mapping[str, Any]
) -> list[TupleRow]:
    """Run one statement with %(name)s parameters in a read-only transaction, and return its rows.

    `settings` are statements that run first in the same transaction. The session must be idle and
    in autocommit mode; afterwards it is again, or it is closed. The statement is prepared, unless
    there is a pooler: each of its server connections would collect the statements of all clients.
    """
    prepares = (False,) if session.pins else (True, True, False)
    for prepare in prepares:
        adapter: abc.Transformer = Transformer(session)
        trip = _RoundTrip(session, adapter, statement, values, prepare=prepare)
        try:
            results = await trip.exchange(settings)
            _raise_error(results)
        except errors.InvalidSqlStatementName:
            # It was deallocated, or this is another server connection: prepare the statement again.
            session.prepared.pop(trip.shape, None)
            continue
        except errors.DuplicatePreparedStatement:
            # The name is a digest of the statement, so the existing one is the same statement.
            session.prepared[trip.shape] = trip.name
            continue
        finally:
            if not session.closed:
                await session.rollback()  # sends nothing if the transaction was committed
        [*_, rows] = [result for result in results if result.status == ExecStatus.TUPLES_OK]
        adapter.set_pgresult(rows)
        return adapter.load_rows(0, rows.ntuples, tuple)
    raise AssertionError("unreachable: the last attempt prepares nothing")


async def read_within_transaction(
    session: Connection, settings: Sequence[str], statement: str, values: Mapping[str, Any]
) -> Answer:
    """The same inside the caller's transaction, which a failure ends.

    Where the failure is one of the prepared statement, the session prepares none in transactions
    from then on, and the caller may run its transaction again.
    """
    assert isinstance(session, Session), "expected a connection of the pool"  # noqa: S101
    adapter: abc.Transformer = Transformer(session)
    prepare = session.pins is None and session.prepares_in_transactions
    trip = _RoundTrip(session, adapter, statement, values, prepare=prepare)
    try:
        _raise_error(results := await trip.exchange(settings, begins=False))
    except errors.Error as error:
        # Whether the failure came before the statement was prepared is not known.
        session.prepared.pop(trip.shape, None)
        if error.sqlstate in UNPREPARED:
            session.prepares_in_transactions = False
        raise
    [*_, found] = [result for result in results if result.status == ExecStatus.TUPLES_OK]
    adapter.set_pgresult(found)
    names = [(found.fname(place) or b"").decode() for place in range(found.nfields)]
    return Answer(names, adapter.load_rows(0, found.ntuples, tuple))


class _RoundTrip:
    """One attempt: the commands of the transaction, and their results."""

    def __init__(
        self,
        session: Session,
        adapter: abc.Transformer,
        statement: str,
        values: Mapping[str, Any],
        *,
        prepare: bool,
    ) -> None:
        self._session = session
        self._adapter = adapter
        self._prepare = prepare
        text, names = _numbered(statement)
        self._values = adapter.dump_sequence(
            [values[name] for name in names], [PyFormat.AUTO] * len(names)
        )
        self.shape: Shape = text, tuple(adapter.types or ())
        self.name = _name(self.shape) if prepare else b""

    async def exchange(self, settings: Sequence[str], *, begins: bool = True) -> list[PGresult]:
        """The results of all commands; `begins` says that they are a transaction of their own."""
        session, pgconn = self._session, self._session.pgconn
        begin: tuple[str, ...] = ()
        if begins:
            begin = ("BEGIN READ ONLY", session.pins) if session.pins else ("BEGIN READ ONLY",)
        try:
            pgconn.enter_pipeline_mode()
            for command in (*begin, *settings):
                pgconn.send_query_params(command.encode(), None)
            self._send(pgconn)
            if begins:
                pgconn.send_query_params(b"COMMIT", None)
            pgconn.pipeline_sync()
            results = await session.wait(_results(pgconn))
            pgconn.exit_pipeline_mode()
        except BaseException:
            # Interrupted by a client that left or a network failure: its state is unknown.
            await session.close()
            raise
        return results

    def _send(self, pgconn: PGconn) -> None:
        text, types = self.shape
        formats = self._adapter.formats
        if not self._prepare:
            pgconn.send_query_params(text, self._values, types, formats)
            return
        prepared = self._session.prepared
        if self.shape not in prepared:
            if len(prepared) >= MOST_PREPARED:
                _, oldest = prepared.popitem(last=False)
                _close(pgconn, oldest)
            prepared[self.shape] = self.name
            pgconn.send_prepare(self.name, text, types)
        prepared.move_to_end(self.shape)
        pgconn.send_query_prepared(self.name, self._values, formats)


def _close(pgconn: PGconn, name: bytes) -> None:
    """Deallocate a prepared statement; libpq before version 17 needs an SQL command for it."""
    if capabilities.has_send_close_prepared():
        pgconn.send_close_prepared(name)
    else:
        pgconn.send_query_params(b"DEALLOCATE " + name, None)


@lru_cache(maxsize=1_000)
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with $1, $2 for its parameters, and their names in this order."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
    places = {name: f"${place}" for place, name in enumerate(names, 1)}
    return (statement % places).encode(), names


_PARAMETER = re.compile(r"%\((\w+)\)s")


@lru_cache(maxsize=1_000)
def _name(shape: Shape) -> bytes:
    """A name made of a digest, so that one name means one statement on all server connections."""
    text, types = shape
    digest = hashlib.sha256(b"%s\0%s" % (repr(types).encode(), text)).hexdigest()
    return b"indexd_" + digest[:32].encode()


def _results(pgconn: PGconn) -> abc.PQGen[list[PGresult]]:
    """All results up to the end of the pipeline."""
    yield from generators.send(pgconn)
    found: list[PGresult] = []
    while True:
        result = yield from generators.fetch(pgconn)
        if result is None:
            continue  # between two commands
        if result.status == ExecStatus.PIPELINE_SYNC:
            return found
        found.append(result)


def _raise_error(results: Sequence[PGresult]) -> None:
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, encoding="utf-8")
