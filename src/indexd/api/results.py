"""From what the store found to what a client gets: snippets, and why a hit is one."""

from msgspec import UNSET

from indexd.api.structs import ResultOut, Weights
from indexd.errors import AnswerTooLarge
from indexd.names import as_asked
from indexd.store.filters import Filters
from indexd.store.library import StoredDocument
from indexd.store.search import Found, Query, excerpt
from indexd.store.search.hits import Hit

SNIPPET = excerpt.LENGTH
"""Characters."""


def results_from(query: Query, found: Found, *, include_weights: bool) -> list[ResultOut]:
    """The hits as a client gets them, best first."""
    return [
        ResultOut(
            doc_id=hit.doc_id,
            chunk_id=hit.chunk_id,
            namespace=as_asked(query.namespace),
            score=hit.score,
            snippet=snippet(hit),
            highlights=[list(place) for place in hit.highlights],
            rationale=rationale(hit, query.filters, found.cosines.get((hit.doc_id, hit.chunk_id))),
            text=hit.text,
            meta=hit.meta,
            document_meta=hit.document_meta,
            version=hit.version,
            source_ref=hit.source_ref,
            ingested_at=hit.ingested_at,
            weights=Weights(hit.similarity, hit.decay) if include_weights else UNSET,
            embedding=hit.embedding if query.include_vectors else UNSET,
        )
        for hit in found.hits
    ]


def not_too_large(found: list[StoredDocument] | None) -> list[StoredDocument]:
    """The documents; raises AnswerTooLarge where they are more than an answer may hold."""
    if found is None:
        raise AnswerTooLarge(
            "the documents are larger than an answer may be",
            hint="ask for fewer documents, or without chunks or vectors",
        )
    return found


def snippet(hit: Hit) -> str:
    """`meta.snippet`, else what was found of the text, else its start.

    At most 240 characters, cut at a word.
    """
    if hit.excerpt is not None:
        return hit.excerpt
    own = hit.meta.get("snippet")
    text = own if isinstance(own, str) else hit.text
    if len(text) <= SNIPPET:
        return text
    start = text.lstrip()[: SNIPPET + 1]
    # A word that is longer than half of it is cut itself: no more than the start would be left.
    cut = max(start.rfind(space) for space in " \n\t")
    return start[:cut].rstrip() if cut > SNIPPET / 2 else start[:SNIPPET].rstrip()


def rationale(hit: Hit, filters: Filters, cosine: float | None = None) -> list[str]:
    """Why this hit was found and stands where it stands, in sentences for people.

    `cosine` is the one by which mode hybrid's vector found the hit, if it did.
    """
    lines = [
        f"Tag match: {wanted}"
        for wanted in filters.tags or ()
        if any(tag == wanted or tag.startswith(wanted + "/") for tag in _tags(hit))
    ]
    if hit.words is None or cosine is not None:
        lines.append(f"Vector cosine: {hit.similarity if cosine is None else cosine:.2f}")
    if hit.words is not None:
        said = ", ".join(f"{one.word} ({one.share:.0%})" for one in hit.matched)
        lines.append(f"Text match: {said}")
    if hit.half_life_seconds is not None:
        lines.append(
            f"Decay: {hit.decay:.2f} (age {_days(hit.age_seconds)}, "
            f"half-life {_days(hit.half_life_seconds)})"
        )
    if hit.irrelevant_since is not None:
        lines.append(f"Marked irrelevant since {hit.irrelevant_since:%Y-%m-%dT%H:%M:%SZ}")
    return lines


def _tags(hit: Hit) -> list[str]:
    """The tags of the chunk and those of its document."""
    of_document = hit.document_meta.get("tags")
    if not isinstance(of_document, list):
        return hit.tags
    return [*hit.tags, *(tag for tag in of_document if isinstance(tag, str))]


def _days(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:.1f} d" if days < 1e6 else f"{days:.1e} d"
