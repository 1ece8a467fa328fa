"""What a search asks for."""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from indexd.store.filters import Filters
from indexd.store.namespaces import Facts
from indexd.vectors import Embedding, Model

Mode = Literal["vector", "lexical", "hybrid"]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A search of one namespace: its k best chunks at the time `at`, without the first `offset`.

    `vector` has shape (dimension,), float32, L2-normalised. It is None in mode lexical, and until
    the embedder has made it of `text`; `embedded_here` says that our embedder made it, `model`
    which model did, None where nobody named one. With `related_to`, a doc_id, the vector is that
    document's own, read in the snapshot of the search. With `per_document` each document is
    answered once, by its best chunk, and k and offset count documents.

    Chunks with a similarity below `min_similarity` are left out (in mode hybrid, of what the vector
    finds), and so are hits with a score below `min_score`. `include_vectors` adds the vectors.
    `is_auto` says that the mode was left to the server: words find what has no vector at all.
    `asked_at` is the time of the request, None where that is `at`.
    """

    namespace: str
    mode: Mode
    k: int
    at: datetime
    filters: Filters = Filters()
    text: str = ""
    vector: Embedding | None = None
    model: Model | None = None
    embedded_here: bool = False
    related_to: str | None = None
    per_document: bool = False
    offset: int = 0
    min_similarity: float | None = None
    min_score: float | None = None
    include_vectors: bool = False
    is_auto: bool = False
    asked_at: datetime | None = None

    @property
    def unexpired_at(self) -> datetime:
        """A document is answered if it does not expire until then: until `at`, nor until now."""
        return self.at if self.asked_at is None else max(self.at, self.asked_at)

    def passing_over(self, *, expired: bool) -> "Query":
        """The same query; where documents have expired, with a filter that leaves them out."""
        if not expired:
            return self
        return replace(self, filters=replace(self.filters, unexpired_at=self.unexpired_at))

    @property
    def page(self) -> int:
        """How many hits are answered at most."""
        return self.k - self.offset

    def agrees_with(self, facts: Facts) -> bool:
        """Whether the namespace's vectors come from the query's model, if both are named."""
        return self.model is None or self.model.agrees_with(facts.model)
