"""What a search answers."""

import msgspec

from indexd.store.search.hits import Hit
from indexd.store.search.plan import Plan


class Found(msgspec.Struct, frozen=True):
    """The answer to a query.

    `plan` is the one that was carried out, None where the namespace holds nothing. `scored` counts
    the chunks that were scored. `degraded` names what was left out under load: index, sweep.
    `cosines` is for mode hybrid: the cosine of each hit that the vector found, by doc_id and
    chunk_id. `semantic` says that the namespace's policy counts what searches find.
    """

    hits: list[Hit]
    scored: int
    plan: Plan | None = None
    degraded: list[str] = []
    cosines: dict[tuple[str, str], float] = {}
    semantic: bool = False
