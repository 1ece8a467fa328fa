"""A transaction of one statement, sent and answered in one round trip.

What psycopg's own pipeline does, without its bookkeeping per command: that costs more than all
the rest of a plain search outside PostgreSQL (0.35 against 0.2 ms of CPU).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from psycopg import abc, capabilities, errors, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

from indexd.db.sessions import Session, Shape

MOST_PREPARED = 100
"""Statements per connection: each takes some 100 kB of the server's memory."""


async def read_in_one_round_trip(
    session: Session, settings: Sequence[str], statement: str, values: Mapping[str, Any]
) -> list[TupleRow]:
    """The rows of a statement with %(name)s parameters, under settings of its own transaction.

    The session must be idle and in autocommit, and is so afterwards, or closed. The statement is
    prepared, unless a pooler is in between: its server connections would each gather all
    statements of all clients.
    """
    prepares = (False,) if session.pins else (True, True, False)
    for prepare in prepares:
        adapter: abc.Transformer = Transformer(session)
        trip = _RoundTrip(session, adapter, statement, values, prepare=prepare)
        try:
            results = await trip.exchange(settings)
            _raise_error(results)
        except errors.InvalidSqlStatementName:
            # Something deallocated it, or this is another server connection: prepare it anew.
            session.prepared.pop(trip.shape, None)
            continue
        except errors.DuplicatePreparedStatement:
            # Of this name, so of this content.
            session.prepared[trip.shape] = trip.name
            continue
        finally:
            if not session.closed:
                await session.rollback()  # sends nothing after a commit
        [*_, rows] = [result for result in results if result.status == ExecStatus.TUPLES_OK]
        adapter.set_pgresult(rows)
        return adapter.load_rows(0, rows.ntuples, tuple)
    raise AssertionError("unreachable: the last trip names no statement")


class _RoundTrip:
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
        self._values = adapter.dump_sequence(list(values.values()), [PyFormat.AUTO] * len(values))
        self.shape: Shape = _numbered(statement, tuple(values)), tuple(adapter.types or ())
        self.name = _name(self.shape) if prepare else b""

    async def exchange(self, settings: Sequence[str]) -> list[PGresult]:
        session, pgconn = self._session, self._session.pgconn
        pins = (session.pins,) if session.pins else ()
        try:
            pgconn.enter_pipeline_mode()
            for command in ("BEGIN READ ONLY", *pins, *settings):
                pgconn.send_query_params(command.encode(), None)
            self._send(pgconn)
            pgconn.send_query_params(b"COMMIT", None)
            pgconn.pipeline_sync()
            results = await session.wait(_results(pgconn))
            pgconn.exit_pipeline_mode()
        except BaseException:
            # Cut off halfway, by a client who left or a network that did: of no more use.
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
    """Have a statement forgotten; a libpq older than 17 has no message for it."""
    if capabilities.has_send_close_prepared():
        pgconn.send_close_prepared(name)
    else:
        pgconn.send_query_params(b"DEALLOCATE " + name, None)


@lru_cache(maxsize=1_000)
def _numbered(statement: str, names: tuple[str, ...]) -> bytes:
    return (statement % {name: f"${place}" for place, name in enumerate(names, 1)}).encode()


@lru_cache(maxsize=1_000)
def _name(shape: Shape) -> bytes:
    """By content: on whichever server connection it is found, it is the same statement."""
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
