"""The route that embeds a text and stores nothing."""

from datetime import datetime
from uuid import uuid4

from litestar.di import NamedDependency
from litestar.params import JSONBody

from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.limits import check_text
from indexd.api.operations import Operation, json_post
from indexd.api.structs import EmbedIn, EmbedOut
from indexd.context import Service
from indexd.embedders import Made
from indexd.errors import EmbedderUnavailable, InvalidField, UnknownNamespace
from indexd.settings import Settings

CANONICAL = ("chronik", "osctx", "docs", "code", "insights")


@json_post(
    "/embed/text",
    scope("write", others="403"),
    Operation("EmbedText", "Store", examples.EMBED, (UnknownNamespace, EmbedderUnavailable)),
)
async def embed_text(
    data: JSONBody[EmbedIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> EmbedOut:
    """Turn a text into a vector, and say what made it and where the text is from."""
    _check(data, service.settings)
    access.writes(data.namespace)
    if service.embedder is None:
        raise EmbedderUnavailable("no embedder is configured; set INDEXD_EMBEDDER_PROVIDER")
    made = await service.embedder.embed([data.text])
    return _answer(data, made, service.now())


def _check(data: EmbedIn, settings: Settings) -> None:
    """Raises InvalidField or UnknownNamespace."""
    for field, value in (("text", data.text), ("source_ref", data.source_ref)):
        if not value.strip():
            raise InvalidField(f"{field}: expected a text that is not blank")
    check_text(data.text, settings, "text")
    if data.namespace not in CANONICAL:
        raise UnknownNamespace(f"namespace: expected one of {', '.join(CANONICAL)}")


def _answer(data: EmbedIn, made: Made, at: datetime) -> EmbedOut:
    [vector] = made.vectors
    return EmbedOut(
        embedding_id=f"embed-{uuid4()}",
        text=data.text,
        embedding=vector.tolist(),
        embedding_model=made.model.name,
        embedding_dim=vector.size,
        model_revision=f"{made.model.revision or made.model.name}-{vector.size}",
        generated_at=at,
        namespace=data.namespace,
        source_ref=data.source_ref,
        embedded_as=made.kind,
    )
