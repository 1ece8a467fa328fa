"""A namespace from one embedding model to another, while it is searched and written to.

What is made is kept in the database batch by batch, so a run that ends early is taken up by the
next one. The vectors in use change in one transaction, at the end. The embedder is never asked
while a transaction is open.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from psycopg.errors import DeadlockDetected

from indexd.background import index_keeper
from indexd.db.pool import Connection, know_vectors
from indexd.embedders import Contact, Embedder
from indexd.errors import EmbedderUnavailable
from indexd.settings import Settings
from indexd.store import indexes
from indexd.store.writing import reembed as store
from indexd.store.writing.reembed import Extent, Text
from indexd.store.writing.vector_space import pause, shut_out_writers

log = structlog.get_logger()

BATCHES = 4
"""So many batches of the embedder per lane are fetched and kept together."""

PATIENCE_SECONDS = 30.0
"""How long to look for a moment without a write before writers are refused."""

PAUSE_SECONDS = 60.0
"""The longest that writers are refused at once, also where this program is killed meanwhile."""

PAUSES = 3
"""How many pauses are tried before giving up."""

Show = Callable[[int, int], None]
"""Told how many texts have their vector, of how many."""


class Outcome(msgspec.Struct, frozen=True):
    chunks: int
    contact: Contact


async def extent(connection: Connection, embedder: Embedder, namespace: str) -> Extent:
    """What there is to do."""
    contact = await embedder.contact()
    async with connection.transaction():
        return await store.begin(connection, namespace, contact.model)


async def run(
    connection: Connection, embedder: Embedder, settings: Settings, namespace: str, show: Show
) -> Outcome:
    """Embed what is missing, put it in place, and rebuild the index the namespace had.

    The connection is in autocommit and without a statement timeout. Raises NotFound,
    InvalidRequest, and EmbedderUnavailable, after which another run goes on.
    """
    await know_vectors(connection)
    contact = await embedder.contact()
    found = await extent(connection, embedder, namespace)
    show(found.done, found.texts)
    task = _Task(connection, embedder, contact, namespace)
    done = found.done
    async for more in task.embed_missing(_pass_size(settings)):
        done += more
        show(done, max(done, found.texts))
    # Without the index: to change a row under it costs a hundred times as much. The lock keeps
    # the keeper of a running server from building it again too early; until it is, searches scan
    # the namespace, which is slower and as right.
    async with index_keeper.lock(connection, 0.2):
        await _drop_indexes(connection, namespace)
        chunks = await task.cut_over(_pass_size(settings))
        await index_keeper.keep_once(connection, index_keeper.rules(settings))
    return Outcome(chunks, contact)


def _pass_size(settings: Settings) -> int:
    return settings.embedder_batch_size * settings.embedder_concurrency * BATCHES


async def _drop_indexes(connection: Connection, namespace: str) -> None:
    for space in await indexes.look(connection):
        if space.name == namespace:
            for index in space.indexes:
                await indexes.drop(connection, index.name)


class _Task(msgspec.Struct, frozen=True):
    """One namespace on its way to the model of `contact`."""

    connection: Connection
    embedder: Embedder
    contact: Contact
    namespace: str

    async def embed_missing(self, size: int) -> AsyncIterator[int]:
        """One pass over all chunks; says how many texts each step embedded."""
        after = ("", -1)
        while texts := await store.missing(self.connection, self.namespace, after, size):
            yield await self._embed(texts)
            after = store.last_key(texts)

    async def _embed(self, texts: Sequence[Text]) -> int:
        by_digest = {text.digest: text.text for text in texts}
        made = await self.embedder.embed(list(by_digest.values()))
        if made.model != self.contact.model:
            raise EmbedderUnavailable(
                f"the embedder's model changed from {self.contact.model} to {made.model} meanwhile"
            )
        vectors = dict(zip(by_digest, made.vectors, strict=True))
        await store.keep(self.connection, self.namespace, self.contact.model, vectors)
        return len(vectors)

    async def cut_over(self, size: int) -> int:
        """Put all vectors in place, in a transaction that finds them all made; how many.

        Where a write came between the last pass and the transaction, another pass makes up for it.
        A namespace with more writes than that would never be done, so after PATIENCE_SECONDS its
        writers are refused for the length of a pass.
        """
        patient_until = time.monotonic() + PATIENCE_SECONDS
        while (chunks := await self._put_in_place()) is None:
            if time.monotonic() >= patient_until:
                return await self._cut_over_paused(size)
            await self._make_up(size)
        return chunks

    async def _cut_over_paused(self, size: int) -> int:
        """Raises EmbedderUnavailable where a pass takes longer than a pause may."""
        try:
            for _ in range(PAUSES):
                until = datetime.now(UTC) + timedelta(seconds=PAUSE_SECONDS)
                await pause(self.connection, self.namespace, until=until)
                log.info("paused writes", namespace=self.namespace, seconds=PAUSE_SECONDS)
                await self._make_up(size)
                if (chunks := await self._put_in_place()) is not None:
                    return chunks
        finally:
            await pause(self.connection, self.namespace, until=None)
        raise EmbedderUnavailable(
            f"the texts that are written to {self.namespace!r} meanwhile take the embedder longer "
            f"than {PAUSE_SECONDS:.0f} seconds: run this again when less is written; what was made "
            "is kept"
        )

    async def _make_up(self, size: int) -> None:
        async for _ in self.embed_missing(size):
            pass

    async def _put_in_place(self) -> int | None:
        """Change the vectors with writers shut out; None, and nothing done, if one is missing."""
        try:
            async with self.connection.transaction():
                await shut_out_writers(self.connection, self.namespace)
                if await store.missing(self.connection, self.namespace, ("", -1), 1):
                    return None
                return await store.put_in_place(
                    self.connection, self.namespace, self.contact.model, self.contact.dimension
                )
        except DeadlockDetected:
            # A deletion holds a document and waits for the namespace.
            log.info("cutting over collided with a deletion", namespace=self.namespace)
            return None
