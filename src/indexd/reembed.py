"""Moves a namespace from one embedding model to another, while it is searched and written to.

Where its vectors come from the wanted model already, only texts without a vector get one.

New vectors are stored in the table `reembedded` batch by batch, so a run that is interrupted is
continued by the next one. At the end, one transaction replaces all vectors of the namespace. The
embedder is never called while a transaction is open.
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
from indexd.store.writing.vector_space import (
    VectorSpace,
    pause,
    shut_out_writers,
    vector_spaces,
)

log = structlog.get_logger()

BATCHES = 4
"""Number of batches per concurrent request to the embedder, which are read and stored together: few
statements, and little work to repeat after an interruption."""

PATIENCE_SECONDS = 30.0
"""Seconds to try the replacement between two writes, before writes are paused."""

PAUSE_SECONDS = 60.0
"""Seconds: the length of a pause at most, also if this program is killed during the pause."""

PAUSES = 3
"""Number of pauses to try before the run fails."""

Show = Callable[[int, int], None]
"""Called with the number of texts that have a new vector, and the number of all texts."""


class Outcome(msgspec.Struct, frozen=True):
    """`chunks` is the number of chunks whose vectors were replaced."""

    chunks: int
    contact: Contact


async def extent(connection: Connection, embedder: Embedder, namespace: str) -> Extent:
    """Count the texts that need a new vector, and those that have one already."""
    contact = await embedder.contact()
    async with connection.transaction():
        return await store.begin(connection, namespace, contact.model)


async def run(
    connection: Connection, embedder: Embedder, settings: Settings, namespace: str, show: Show
) -> Outcome:
    """Embed all texts that have no new vector, replace the vectors, and rebuild the index.

    The connection must be in autocommit mode and without a statement timeout. Only the replacement
    is atomic: one transaction, which locks the namespace against writers. Before it, the keeper's
    advisory lock is taken. Raises NotFound, InvalidRequest and EmbedderUnavailable. After
    EmbedderUnavailable the next run continues with the vectors that were stored.
    """
    await know_vectors(connection)
    contact = await embedder.contact()
    found = await extent(connection, embedder, namespace)
    show(found.done, found.texts)
    task = _Task(connection, embedder, contact, namespace, found.fills)
    done = found.done
    async for more in task.embed_missing(_pass_size(settings)):
        done += more
        show(done, max(done, found.texts))
    # The index is dropped first, because updating a row in it takes a hundred times as long. The
    # lock prevents the keeper of a running server from building the index too early. Until it is
    # built again, searches scan the namespace, which is slower and returns exact results.
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
            await indexes.note_serves(connection, space, serves=False)
            for index in space.indexes:
                await indexes.drop(connection, index.name)


class _Task(msgspec.Struct, frozen=True):
    """The move of one namespace to the model of `contact`; `fills` is that of Extent."""

    connection: Connection
    embedder: Embedder
    contact: Contact
    namespace: str
    fills: bool

    async def embed_missing(self, size: int) -> AsyncIterator[int]:
        """One pass over all chunks. Yields the number of texts that each step embedded."""
        after = ("", -1)
        while texts := await self._missing(after, size):
            yield await self._embed(texts)
            after = store.last_key(texts)

    async def _missing(self, after: tuple[str, int], limit: int) -> list[Text]:
        return await store.missing(self.connection, self.namespace, after, limit, fills=self.fills)

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
        """Replace all vectors in one transaction. Returns the number of chunks.

        If a text was written after the last pass, the transaction changes nothing, and another pass
        embeds it. Under constant writes this would never end, so after PATIENCE_SECONDS writes are
        paused for the length of a pass.
        """
        patient_until = time.monotonic() + PATIENCE_SECONDS
        while (chunks := await self._put_in_place()) is None:
            if time.monotonic() >= patient_until:
                return await self._cut_over_paused(size)
            await self._make_up(size)
        return chunks

    async def _cut_over_paused(self, size: int) -> int:
        """Pause writes, embed the rest, and replace the vectors.

        Raises EmbedderUnavailable if a pass takes longer than a pause in each of PAUSES attempts.
        """
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

    async def _check_space(self) -> None:
        """Vectors that stay must come from the model of those that are filled in."""
        spaces = await vector_spaces(self.connection, [self.namespace])
        present = spaces.get(self.namespace)
        wanted = VectorSpace(self.contact.dimension, self.contact.model)
        if self.fills and present is not None and present != wanted:
            raise EmbedderUnavailable(
                f"the vectors of {self.namespace!r} come from another model than "
                f"{self.contact.model} now: run this again"
            )

    async def _put_in_place(self) -> int | None:
        """Replace the vectors in one transaction that excludes writers.

        If a text has no new vector yet, nothing is changed, and None is returned.
        """
        try:
            async with self.connection.transaction():
                await shut_out_writers(self.connection, self.namespace)
                await self._check_space()
                if await self._missing(("", -1), 1):
                    return None
                return await store.put_in_place(
                    self.connection,
                    self.namespace,
                    self.contact.model,
                    self.contact.dimension,
                    fills=self.fills,
                )
        except DeadlockDetected:
            # A deletion holds a lock on a document and waits for the lock on the namespace.
            log.info("cutting over collided with a deletion", namespace=self.namespace)
            return None
