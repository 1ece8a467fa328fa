"""The client of an embedder: batches, bounded concurrency, retries, breaker, query cache."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Literal, Self

import msgspec
import numpy as np
import stamina
import structlog
from numpy.typing import ArrayLike

from indexd.embedders.breaker import Breaker
from indexd.embedders.prefixes import Prefixes
from indexd.embedders.protocol import Failure, Kind, Provider, Unusable
from indexd.errors import EmbedderRefused, EmbedderUnavailable
from indexd.supervised import run_in_background
from indexd.telemetry.metrics import Metrics
from indexd.vectors import Embedding, Model, normalised

log = structlog.get_logger()

PROBE = "indexd"
"""Text that is embedded to find out the dimension, and whether the embedder is back."""

ATTEMPTS = 3
"""Number of times that a batch is sent before its failure is reported."""

WATCH_SECONDS = 15.0
"""Seconds between two questions for the model of a working embedder, which may be replaced."""


Serves = Literal["yes", "on request", "foreign", "no"]
"""Whether an embedder serves a namespace. `on request`: there are no vectors yet that its own could
be compared with. `foreign`: there are, and others made them. `no`: there is no embedder.
"""


class EmbedderLimits(msgspec.Struct, frozen=True):
    """Limits of an embedder.

    `timeout`: seconds for one batch with its retries. `dimension`: the expected one, None for any.
    `batch`: texts per batch, `characters`: their characters, unless a single text has more.
    `concurrency`: batches at once. `cache`: query texts to remember.
    """

    timeout: float
    dimension: int | None
    batch: int
    concurrency: int
    cache: int
    characters: int | None = None


class Manner(msgspec.Struct, frozen=True):
    """How an embedder is used.

    `prefixes` are part of its model. `writes_them`: its model writes them itself. `only`: it serves
    namespaces whose vectors come from this model, and those without vectors; None for all.
    `is_optional`: the server goes on as without an embedder where it turns out to be unusable on
    this machine. `queries_apart`: queries do not count among the batches of documents.
    """

    prefixes: Prefixes = Prefixes()
    writes_them: bool = False
    only: Model | None = None
    is_optional: bool = False
    queries_apart: bool = False


class Made(msgspec.Struct, frozen=True):
    """Vectors in the order of their texts, and the model that made them all."""

    model: Model
    vectors: list[Embedding]
    kind: Kind


class Contact(msgspec.Struct, frozen=True):
    """The model and dimension of the embedder, as of the last time it answered."""

    model: Model
    dimension: int


class Embedder:
    """Embeds texts with one provider. It is open inside of `async with`.

    Every failure of the provider is raised as EmbedderUnavailable or its subclass EmbedderRefused.
    """

    def __init__(
        self,
        provider: Provider,
        limits: EmbedderLimits,
        metrics: Metrics,
        manner: Manner,
    ) -> None:
        self._provider = provider
        self._limits = limits
        self._metrics = metrics
        self._manner = manner
        self._breaker = Breaker()
        slots = asyncio.Semaphore(limits.concurrency)
        self._slots: dict[Kind, asyncio.Semaphore] = {
            "query": asyncio.Semaphore(limits.concurrency) if manner.queries_apart else slots,
            "passage": slots,
        }
        self._unusable: str | None = None
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=ATTEMPTS, timeout=limits.timeout, wait_initial=0.05, wait_jitter=0.1
        )
        self._cache: OrderedDict[tuple[Model, str], Embedding] = OrderedDict()
        self._met = asyncio.Event()
        self._contact: Contact | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._open.push_async_callback(self._provider.close)
        await self._open.enter_async_context(run_in_background(self._keep_watch))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def down(self) -> str | None:
        """The reason why the embedder is down; None while it works."""
        return self._breaker.reason

    @property
    def only(self) -> Model | None:
        """The model whose namespaces it serves beside those without vectors; None for all."""
        return self._manner.only

    @property
    def unusable(self) -> str | None:
        """The reason why the server goes on as without this embedder; None if it does not."""
        return self._unusable

    def describe(self) -> str:
        """Provider, model and dimension as a text for people."""
        if self._unusable is not None:
            return f"none: {self._unusable}"
        if self._contact is None:
            return f"{self._provider.name}, not met yet"
        model, dimension = self._contact.model, self._contact.dimension
        return f"{self._provider.name}, {model}, dimension {dimension}"

    async def contact(self) -> Contact:
        """The present model and dimension. Right after the start it waits for the first contact."""
        if self._contact is None:
            self._breaker.check()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.timeout):
                    await self._met.wait()
            self._breaker.check()
        if self._contact is None:
            raise EmbedderUnavailable("the embedder is not ready yet")
        return self._contact

    async def query(self, text: str) -> tuple[Model, Embedding]:
        """The vector of a query text, from a cache of the last ones if possible."""
        model = (await self.contact()).model
        if (known := self._cache.get((model, text))) is not None:
            self._cache.move_to_end((model, text))
            self._metrics.embed_cache_hits.inc()
            return model, known
        made = await self.embed([text], "query")
        if self._limits.cache:
            self._cache[made.model, text] = made.vectors[0]
            if len(self._cache) > self._limits.cache:
                self._cache.popitem(last=False)
        return made.model, made.vectors[0]

    async def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Made:
        """Embed all texts or none, in batches of which a bounded number runs at once.

        Raises EmbedderRefused if the model does not accept one of the texts.
        """
        model = (await self.contact()).model
        batches = list(self._batches(texts))
        vectors: list[list[Embedding]] = [[] for _ in batches]
        waiting = iter(enumerate(batches))

        async def work() -> None:
            for place, batch in waiting:
                vectors[place] = await self._batch(batch, kind)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(batches), self._limits.concurrency)):
                    group.create_task(work())
        except ExceptionGroup as group_error:
            # The first failure cancelled the other batches, so one is reported.
            raise group_error.exceptions[0] from None
        return Made(model, [vector for batch in vectors for vector in batch], kind)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        characters = 0
        for text in texts:
            longest = self._limits.characters
            is_full = longest is not None and characters + len(text) > longest
            if batch and (is_full or len(batch) == self._limits.batch):
                yield batch
                batch, characters = [], 0
            batch.append(text)
            characters += len(text)
        if batch:
            yield batch

    async def _batch(self, texts: Sequence[str], kind: Kind) -> list[Embedding]:
        calling = False

        async def attempt() -> list[Embedding]:
            nonlocal calling
            self._breaker.check()
            async with self._slots[kind]:
                # The breaker may have opened while this batch waited for a slot.
                self._breaker.check()
                calling = True
                vectors = await self._call(texts, kind)
                calling = False
                return vectors

        def again(error: Exception) -> bool:
            return isinstance(error, Failure) and error.again and self._breaker.reason is None

        try:
            async with asyncio.timeout(self._limits.timeout):
                return await self._retrying.on(again)(attempt)
        except TimeoutError as error:
            if not calling:
                raise EmbedderUnavailable("the embedder is busy with other texts") from error
            reason = f"it did not answer within {self._limits.timeout:g} s"
            self._metrics.embed_failures.labels("timeout").inc()
            self._fail(reason, lasting=True)
            raise EmbedderUnavailable(f"the embedder failed: {reason}") from error
        except Failure as failure:
            refused = failure.cause == "refused"
            error_type = EmbedderRefused if refused else EmbedderUnavailable
            raise error_type(f"the embedder failed: {failure}") from failure

    async def _call(self, texts: Sequence[str], kind: Kind) -> list[Embedding]:
        """One attempt, with its metrics. A failure is reported to the breaker."""
        started = time.perf_counter()
        if not self._manner.writes_them and (prefix := self._manner.prefixes.before(kind)):
            texts = [prefix + text for text in texts]
        try:
            expected = self._contact.dimension if self._contact else self._limits.dimension
            vectors = _checked(await self._provider.embed(texts, kind), len(texts), expected)
        except Failure as failure:
            self._metrics.embed_failures.labels(failure.cause).inc()
            if failure.cause != "refused":
                self._fail(str(failure), lasting=failure.lasting)
            raise
        self._metrics.embed_duration.observe(time.perf_counter() - started)
        self._metrics.embed_batches.inc()
        self._metrics.embed_texts.inc(len(texts))
        self._breaker.works()
        return vectors

    def _fail(self, reason: str, *, lasting: bool) -> None:
        was_down = self.down
        self._breaker.failed(reason, lasting=lasting)
        if self.down and not was_down:
            log.warning("embedder is down", reason=reason)

    async def _keep_watch(self) -> None:
        """Check the embedder regularly: for the first contact, a change of model, or its return."""
        while True:
            try:
                async with asyncio.timeout(self._limits.timeout):
                    await self._look()
            except Unusable as error:
                if self._manner.is_optional:
                    self._unusable = str(error)
                    log.warning("no embedder: texts need vectors of their own", reason=str(error))
                    self._breaker.still_down(str(error))
                    self._met.set()
                    return
                self._note_down(str(error))
            except (Failure, TimeoutError) as error:
                reason = str(error) or f"it did not answer within {self._limits.timeout:g} s"
                self._note_down(reason)
            else:
                if self.down is not None:
                    log.info("embedder is back", embedder=self.describe())
                    self._breaker.works()
                self._met.set()
            await self._pause()

    def _note_down(self, reason: str) -> None:
        if self.down is None:
            log.warning("embedder is down", reason=reason)
        self._breaker.still_down(reason)
        self._met.set()

    async def _pause(self) -> None:
        if self.down is not None:
            await asyncio.sleep(self._breaker.delay)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_SECONDS):
                await self._breaker.opened.wait()
                await asyncio.sleep(self._breaker.delay)

    async def _look(self) -> None:
        """Ask for the model. Embed a text only to find out the dimension, or whether it is back."""
        model = self._manner.prefixes.mark(await self._provider.model())
        known = self._contact
        if known and known.model == model and self.down is None:
            return
        same = known is not None and known.model == model
        expected = known.dimension if known and same else self._limits.dimension
        [vector] = _checked(await self._provider.embed([PROBE], "query"), 1, expected)
        self._contact = Contact(model, vector.size)
        if not same:
            log.info("met embedder", embedder=self.describe())


def _checked(rows: ArrayLike, wanted: int, dimension: int | None) -> list[Embedding]:
    """Normalise the vectors. Raises Failure if their number, dimension or values are wrong."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(rows, dtype=np.float64).astype(np.float32)
    except ValueError as error:
        raise Failure("answer", "its vectors differ in dimension") from error
    if array.ndim != 2 or len(array) != wanted:
        raise Failure("answer", f"it answered {len(array)} vectors for {wanted} texts")
    if dimension is not None and array.shape[1] != dimension:
        raise Failure(
            "answer",
            f"its vectors have dimension {array.shape[1]}, expected {dimension}",
        )
    if not np.isfinite(array).all() or not array.any(axis=1).all():
        raise Failure("answer", "it answered a vector that is not finite, or all zero")
    return [normalised(vector) for vector in array]
