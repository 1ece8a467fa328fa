"""Embedders turn texts into vectors: providers, and a client that handles their failures."""

from indexd.embedders import ollama, sentence_transformers
from indexd.embedders.client import Contact, Embedder, EmbedderLimits, Made
from indexd.embedders.ollama import Ollama
from indexd.embedders.openai import OpenAI
from indexd.embedders.protocol import Provider
from indexd.embedders.sentence_transformers import SentenceTransformers
from indexd.errors import ConfigurationError
from indexd.settings import Settings, secret_from
from indexd.telemetry.metrics import Metrics

__all__ = ["Contact", "Embedder", "EmbedderLimits", "Made", "of"]


def of(settings: Settings, metrics: Metrics) -> Embedder | None:
    """The embedder of the settings; None if they name none. Raises ConfigurationError."""
    provider = _provider(settings)
    if provider is None:
        return None
    limits = EmbedderLimits(
        timeout=settings.embedder_timeout,
        dimension=settings.embedder_dim,
        batch=settings.embedder_batch_size,
        # The local model has one thread; further batches would only wait and use up their timeout.
        concurrency=1
        if settings.embedder_provider == "sentence-transformers"
        else settings.embedder_concurrency,
        cache=settings.embedder_cache_size,
    )
    return Embedder(provider, limits, metrics)


def _provider(settings: Settings) -> Provider | None:
    url, model, timeout = (
        settings.embedder_base_url,
        settings.embedder_model,
        settings.embedder_timeout,
    )
    if settings.embedder_provider == "ollama":
        return Ollama(url or ollama.DEFAULT_URL, model or ollama.DEFAULT_MODEL, timeout=timeout)
    if settings.embedder_provider == "openai":
        if not url or not model:
            # There is no default server, because texts must not be sent to an unexpected one.
            raise ConfigurationError(
                "embedder_provider: openai needs embedder_base_url and embedder_model"
            )
        return OpenAI(url, model, timeout=timeout, key=_key(settings))
    if settings.embedder_provider == "sentence-transformers":
        return SentenceTransformers(model or sentence_transformers.DEFAULT_MODEL)
    return None


def _key(settings: Settings) -> str | None:
    if settings.embedder_api_key_file is None:
        return settings.embedder_api_key
    return secret_from(settings.embedder_api_key_file, "embedder_api_key_file")
