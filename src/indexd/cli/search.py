"""`indexd search`: search a namespace from a terminal, and show the plan of the search."""

import asyncio
from datetime import UTC, datetime

import click
from msgspec.structs import replace

from indexd import embedders, embedding
from indexd.cli.common import running_database, with_settings
from indexd.cli.text import printable
from indexd.db.pool import Database
from indexd.errors import MissingQuery
from indexd.settings import Settings
from indexd.store import search as store
from indexd.store.search import Found, NamespaceMemory, Query, Tuning
from indexd.store.search import plan as plans
from indexd.telemetry.metrics import Metrics


@click.command()
@click.argument("text", required=False)
@click.option("--namespace", "-n", default="default", show_default=True, help="Where to search.")
@click.option("--like", "doc_id", help="Find what is near this document, instead of a TEXT.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 1_000), help="Results.")
@click.option("--explain", is_flag=True, help="Say how the search was carried out.")
@with_settings
def search(
    settings: Settings, text: str | None, namespace: str, doc_id: str | None, k: int, explain: bool
) -> None:
    """Search NAMESPACE for TEXT: by meaning where an embedder serves it, else by its words.

    Example: indexd search -n notes --explain "how long are backups kept"
    """
    if doc_id is None and not (text or "").strip():
        raise MissingQuery("expected a TEXT, or a document with --like")
    query = Query(
        namespace=namespace.strip(),
        mode="lexical" if doc_id is None else "vector",
        k=k,
        at=datetime.now(UTC),
        text=text or "",
        related_to=doc_id,
        per_document=doc_id is not None,
    )
    with running_database(settings) as url:
        memory = NamespaceMemory()
        found = asyncio.run(_search(url, settings, memory, query))
    _print(found)
    if explain:
        _explain(found, memory, query.namespace)


async def _search(url: str, settings: Settings, memory: NamespaceMemory, query: Query) -> Found:
    embedder = embedders.of(settings, Metrics()) if query.related_to is None else None
    tuning = Tuning(ef=settings.search_ef, max_scan_tuples=settings.search_max_scan_tuples)
    async with Database(url, settings) as database:
        if embedder and await embedding.serves(query.namespace, embedder, database) == "yes":
            async with embedder:
                model, vector = await embedder.query(query.text)
            query = replace(query, mode="vector", vector=vector, model=model, embedded_here=True)
        return await store.run(database, memory, query, tuning)


def _print(found: Found) -> None:
    for hit in found.hits:
        fading = f" x {hit.decay:.3f} decay" if hit.half_life_seconds is not None else ""
        name = click.style(printable(hit.doc_id), bold=True)
        click.echo(f"{hit.score:.4f}  {name}  ({hit.similarity:.4f}{fading})")
        click.echo(f"        {printable(' '.join(hit.text.split()))[:100]}")
    if not found.hits:
        click.echo("nothing found")


def _explain(found: Found, memory: NamespaceMemory, namespace: str) -> None:
    click.echo(f"\nplan       {plans.describe(found.plan) if found.plan else 'nothing is stored'}")
    click.echo(f"scored     {found.scored:,} chunks")
    for facts in memory.of(namespace).facts.values():
        index = "an HNSW index" if facts.indexed else "no index"
        half_life = facts.half_life_seconds
        fading = f"half-life {half_life:,.0f} s" if half_life is not None else "no half-life"
        click.echo(
            f"namespace  {facts.chunks:,} chunks, dimension {facts.dimension}, {index}, {fading}"
        )
