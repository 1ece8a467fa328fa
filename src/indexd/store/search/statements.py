"""The statements of probe and sweep: each scores candidates exactly and gives the k best keys."""

from indexd.store.filters import Filters, content, in_time, matches
from indexd.store.search.costs import Tuning
from indexd.store.search.hits import top

_SCORE = "indexd.score(cosine, ingested_at, coalesce(half_life_seconds, %(half_life)s), %(at)s)"
_ROW = """doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
               -(embedding <#> %(vector)s) AS cosine"""
_KEY = "doc_id, ordinal, chunk_id, score"


def _scored(rows: str) -> str:
    return f"(SELECT doc_id, ordinal, chunk_id, {_SCORE} AS score FROM {rows}) AS scored"


def similar(dimension: int, filters: Filters, more: str = "") -> str:
    """The chunks nearest to the vector by the HNSW index, and their cosines in halfvec."""
    # The index is found by its expression and predicate, in which the dimension is a literal.
    distance = f"(embedding::halfvec({dimension})) <#> %(vector)s::vector::halfvec({dimension})"
    return f"""
        SELECT {_ROW},
               {more or f"-({distance}) AS half_cosine"}
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND vector_dims(embedding) = {dimension}
           AND {matches(filters)}
         ORDER BY {distance}
         LIMIT %(wanted)s
    """


def index_search(ef: int, *, tuning: Tuning, on_to: int | None = None) -> list[str]:
    """What is set for a search of the HNSW index, in its transaction.

    With `on_to` the scan goes on, to so many rows of the index, until it has what is wanted:
    without that a selective filter starves the similar arm, and no search sees more rows than
    ef_max. Relaxed order loses nothing: strict order drops the rows that turn up late.
    """
    settings = [f"SET LOCAL hnsw.ef_search = {min(ef, tuning.ef_max)}"]
    if on_to is not None:
        settings += [
            "SET LOCAL hnsw.iterative_scan = relaxed_order",
            f"SET LOCAL hnsw.max_scan_tuples = {on_to}",
            "SET LOCAL hnsw.scan_mem_multiplier = 8",
        ]
    return settings


def dimensionality(rows: str, cosine: str) -> str:
    """The local intrinsic dimensionality of what was found, by maximum likelihood (Amsaleg et al.,
    2015): how little the distances grow from the nearest to the farthest. NULL if they do not.
    """
    return f"""(
        SELECT -2 / nullif(
                   avg(ln(greatest(1 - {cosine}, 1e-9) / greatest(1 - farthest, 1e-9))), 0
               )
          FROM {rows}
         CROSS JOIN (SELECT min({cosine}) AS farthest FROM {rows}) AS last
    )"""


# A namespace has few classes and many chunks: each step looks the next one up in the index.
_CLASSES = """
    WITH RECURSIVE present (half_life_class) AS (
        (
            SELECT half_life_class
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
             ORDER BY half_life_class
             LIMIT 1
        )
        UNION ALL
        SELECT (
                SELECT chunks.half_life_class
                  FROM indexd.chunks
                 WHERE chunks.namespace = %(namespace)s
                   AND chunks.half_life_class > present.half_life_class
                 ORDER BY chunks.half_life_class
                 LIMIT 1
               )
          FROM present
         WHERE present.half_life_class IS NOT NULL
    )
    SELECT half_life_class FROM present WHERE half_life_class IS NOT NULL
"""


def probe_statement(dimension: int, filters: Filters, *, per_document: bool) -> str:
    """Both arms in one statement; with newest = 0 the similar one alone.

    A filter is an output of the newest arm, not a condition, so that it reads no more than its
    limit. The second column bounds the cosines of chunks not given. The row given last does, and
    not the lowest: in relaxed order the rows of an earlier batch may lie lower, and rows not yet
    given above those. A row before it does so more surely, for of the farthest of its candidates
    an index misses most.
    """
    return f"""
        WITH near AS MATERIALIZED (
            SELECT *, row_number() OVER () AS place
              FROM ({similar(dimension, filters)}) AS nearby
        ),
        newest AS MATERIALIZED (
            SELECT {_ROW},
                   {content(filters)} AS hit
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND {in_time(filters)}
             ORDER BY ingested_at DESC
             LIMIT %(newest)s
        ),
        classes AS (
            SELECT half_life_class FROM (VALUES (0)) AS once
             CROSS JOIN LATERAL ({_CLASSES}) AS present
             WHERE %(newest)s > 0
        ),
        said AS (
            SELECT (SELECT count(*) FROM near),
                   greatest(
                       (SELECT half_cosine FROM near ORDER BY place DESC LIMIT 1),
                       (
                        SELECT percentile_disc(%(trusted)s)
                               WITHIN GROUP (ORDER BY half_cosine DESC)
                          FROM near
                       )
                   ),
                   (
                    SELECT percentile_disc(%(trusted)s / 2) WITHIN GROUP (ORDER BY half_cosine DESC)
                      FROM near
                   ),
                   (SELECT count(*) FROM newest),
                   (SELECT min(ingested_at) FROM newest),
                   ARRAY(SELECT half_life_class FROM classes),
                   {dimensionality("near", "half_cosine")}
        ),
        found AS (
            (
                {top(_scored("near"), _KEY, per_document=per_document)}
            )
            UNION ALL
            (
                {top(_scored("newest WHERE hit"), _KEY, per_document=per_document)}
            )
        )
        SELECT said.*, found.*
          FROM said
          LEFT JOIN found ON true
    """


# A score is at most its cosine, so what lies below kth needs no decay computed: 0.6 microseconds.
_MAY_REACH_KTH = "AND (embedding <#> %(vector)s) <= -%(kth)s::float8"


def sweep_statement(filters: Filters, *, per_document: bool) -> str:
    """The k best of some slices, each of one half-life class, that may reach kth."""
    slices = f"""
        unnest(
            %(classes)s::smallint[], %(since)s::timestamptz[], %(until)s::timestamptz[]
        ) AS slice (class, since, until)
        CROSS JOIN LATERAL (
            SELECT {_ROW}
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND half_life_class = slice.class
               AND ingested_at BETWEEN slice.since AND slice.until
               {_MAY_REACH_KTH}
               AND {matches(filters)}
            OFFSET 0
        ) AS swept
    """
    return top(_scored(slices), _KEY, per_document=per_document)


def scan_statement(filters: Filters, *, floor: bool, per_document: bool) -> str:
    """The k best of all that match; with a floor, of those that may reach kth."""
    matching = f"""(
                SELECT {_ROW}
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND {matches(filters)}
                   {_MAY_REACH_KTH if floor else ""}
                OFFSET 0
            ) AS matching"""
    return top(_scored(matching), _KEY, per_document=per_document)
