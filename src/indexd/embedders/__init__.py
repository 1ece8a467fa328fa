"""Embedders turn texts into vectors: providers, and a client that handles their failures."""

from indexd.embedders import local, ollama, prefixes, sentence_transformers
from indexd.embedders.client import Contact, Embedder, EmbedderLimits, Made, Manner, Serves
from indexd.embedders.local import Local
from indexd.embedders.ollama import Ollama
from indexd.embedders.openai import OpenAI
from indexd.embedders.prefixes import Prefixes
from indexd.embedders.protocol import Provider
from indexd.embedders.sentence_transformers import SentenceTransformers
from indexd.errors import ConfigurationError
from indexd.local_model import engine
from indexd.settings import Settings, secret_from
from indexd.telemetry.metrics import Metrics

__all__ = ["Contact", "Embedder", "EmbedderLimits", "Made", "Serves", "of"]


LOCAL_TIMEOUT_SECONDS = 120.0
"""Seconds for a batch of the local model at least: on a busy machine it is slow, and no worse."""

LOCAL_BATCH_CHARACTERS = 4_000
"""Characters of a batch of the local model: seconds, after which another request has its turn."""


def of(settings: Settings, metrics: Metrics) -> Embedder | None:
    """The embedder of the settings; None if there is none. Raises ConfigurationError.

    Where the settings name none, it is the one that comes along, if its package is installed.
    """
    name = settings.embedder_provider
    if name == "none":
        return None
    if name == "local" or name is None:
        return _local(settings, metrics)
    provider, model = _provider(settings)
    limits = EmbedderLimits(
        timeout=settings.embedder_timeout,
        dimension=settings.embedder_dim,
        batch=settings.embedder_batch_size,
        # The model in this process has one thread; further batches would only wait and use up
        # their timeout.
        concurrency=1 if name == "sentence-transformers" else settings.embedder_concurrency,
        cache=settings.embedder_cache_size,
    )
    wanted = prefixes.chosen(
        model, settings.embedder_query_prefix, settings.embedder_passage_prefix
    )
    return Embedder(provider, limits, metrics, Manner(wanted))


def _local(settings: Settings, metrics: Metrics) -> Embedder | None:
    is_asked_for = settings.embedder_provider == "local"
    if not local.is_installed():
        if is_asked_for:
            raise ConfigurationError(
                "embedder_provider: local is not installed; install the extra `indexd[local]`"
            )
        return None
    if is_asked_for:
        _check_local(settings)
    timeout = max(settings.embedder_timeout, LOCAL_TIMEOUT_SECONDS)
    limits = EmbedderLimits(
        timeout=timeout,
        dimension=engine.DIMENSION,
        batch=settings.embedder_batch_size,
        concurrency=1,  # one process, whose batches come one after the other
        cache=settings.embedder_cache_size,
        characters=LOCAL_BATCH_CHARACTERS,
    )
    written = Prefixes(engine.QUERY_PREFIX, engine.PASSAGE_PREFIX)
    manner = Manner(
        written,
        writes_them=True,
        only=written.mark(local.MODEL),
        is_optional=not is_asked_for,
        queries_apart=True,
    )
    return Embedder(
        Local(threads=settings.embedder_threads, timeout=timeout), limits, metrics, manner
    )


def _check_local(settings: Settings) -> None:
    """Raises ConfigurationError for a setting that the local model does not have."""
    for key in ("base_url", "model", "query_prefix", "passage_prefix"):
        if getattr(settings, f"embedder_{key}") is not None:
            raise ConfigurationError(
                f"embedder_{key}: the local embedder has one model and no {key}, expected it unset"
            )
    if settings.embedder_dim not in (None, engine.DIMENSION):
        raise ConfigurationError(
            f"embedder_dim: the local embedder has dimension {engine.DIMENSION}, "
            f"got {settings.embedder_dim}"
        )


def _provider(settings: Settings) -> tuple[Provider, str]:
    """The provider of the settings, and the name of its model."""
    url, timeout = settings.embedder_base_url, settings.embedder_timeout
    if settings.embedder_provider == "ollama":
        model = settings.embedder_model or ollama.DEFAULT_MODEL
        return Ollama(url or ollama.DEFAULT_URL, model, timeout=timeout), model
    if settings.embedder_provider == "openai":
        if not url or not settings.embedder_model:
            # There is no default server, because texts must not be sent to an unexpected one.
            raise ConfigurationError(
                "embedder_provider: openai needs embedder_base_url and embedder_model"
            )
        model = settings.embedder_model
        return OpenAI(url, model, timeout=timeout, key=_key(settings)), model
    model = settings.embedder_model or sentence_transformers.DEFAULT_MODEL
    return SentenceTransformers(model), model


def _key(settings: Settings) -> str | None:
    if settings.embedder_api_key_file is None:
        return settings.embedder_api_key
    return secret_from(settings.embedder_api_key_file, "embedder_api_key_file")
