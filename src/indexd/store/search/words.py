"""The statements of a search by words, whole: keys by BM25 x decay, and the hits of some keys."""

from indexd.store.filters import Filters, of_fields
from indexd.store.search import hits

_WEIGHED = """SELECT fields.doc_id, fields.ordinal, fields.ingested_at, fields.half_life_seconds,
                   -(fields.lex <#> %(asked)s::sparsevec) AS similarity
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND {found}
               AND {filters}"""

_BY_TERM = "fields.terms && %(terms)s::int[]"

# What a program of the release before wrote: weighed on the way, until the keeper has done it.
_UNWEIGHED = """SELECT fields.doc_id, fields.ordinal, fields.ingested_at, fields.half_life_seconds,
                   -(weighed.lex <#> %(asked)s::sparsevec) AS similarity
              FROM indexd.chunk_fields AS fields
              JOIN indexd.chunks AS chunk
                ON chunk.namespace = %(namespace)s
               AND chunk.doc_id = fields.doc_id
               AND chunk.ordinal = fields.ordinal
             CROSS JOIN LATERAL indexd.weighed(
                    %(namespace)s, chunk.text,
                    (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s)
                   ) AS weighed
             WHERE fields.namespace = %(namespace)s
               AND fields.lex IS NULL
               AND weighed.terms && %(terms)s::int[]
               AND {filters}"""


def keys(
    filters: Filters,
    *,
    per_document: bool = False,
    similar: bool = False,
    unweighed: bool = False,
    broad: bool = False,
) -> str:
    """The k best keys of the chunks that hold one of `terms`, by similarity x decay.

    With `broad` these are all terms of the query, and so common that no index is asked for them: a
    chunk without any has the similarity 0. `similar` leaves out what is below min_similarity.
    `unweighed` adds the chunks whose words are not weighed yet. The ids of chunks stand in another
    table: they are looked up for the k best alone, and for those that tie with the last of them in
    score and document.
    """
    passed = of_fields(filters)
    matching = _WEIGHED.format(filters=passed, found="true" if broad else _BY_TERM)
    if unweighed:
        matching += f"""
            UNION ALL
            {_UNWEIGHED.format(filters=passed)}"""
    enough = "similarity > 0"
    if similar:
        enough += " AND similarity >= %(min_similarity)s::float8"
    if per_document:
        best = """SELECT scored.*
              FROM (
                    SELECT doc_id, max(score) AS score
                      FROM scored
                     GROUP BY doc_id
                     ORDER BY max(score) DESC, doc_id
                     LIMIT %(k)s
                   ) AS documents
              JOIN scored USING (doc_id, score)"""
        chosen = "SELECT DISTINCT ON (best.doc_id)"
        order = "best.doc_id, chunk_id"
    else:
        best = """SELECT *
              FROM scored
             ORDER BY score DESC, doc_id
             FETCH FIRST (%(k)s) ROWS WITH TIES"""
        chosen = "SELECT"
        order = "score DESC, doc_id, chunk_id"
    return f"""/* indexd:search.words */
        WITH matching AS MATERIALIZED (
            {matching}
        ),
        scored AS (
            SELECT doc_id, ordinal, similarity,
                   indexd.score(
                       similarity, ingested_at, coalesce(half_life_seconds, %(half_life)s::float8),
                       %(at)s
                   ) AS score
              FROM matching
             WHERE {enough}
        ),
        best AS (
            {best}
        ),
        named AS (
            {chosen} best.doc_id, best.ordinal, chunk.chunk_id, best.similarity, best.score
              FROM best
              JOIN indexd.chunks AS chunk
                ON chunk.namespace = %(namespace)s
               AND chunk.doc_id = best.doc_id
               AND chunk.ordinal = best.ordinal
             ORDER BY {order}
        )
        SELECT *
          FROM named
         ORDER BY score DESC, doc_id, chunk_id
         LIMIT %(k)s
    """


# NULL of a chunk that holds none of the words.
_SHARES = """(
                SELECT array_agg(
                           -(coalesce(
                               fields.lex,
                               (
                                SELECT lex
                                  FROM indexd.weighed(%(namespace)s, chunk.text, NULL)
                               )
                           ) <#> one.vector)
                           ORDER BY one.place
                       )
                  FROM indexd.chunk_fields AS fields
                 CROSS JOIN unnest(%(each)s::sparsevec[])
                       WITH ORDINALITY AS one (vector, place)
                 WHERE fields.namespace = %(namespace)s
                   AND fields.doc_id = best.doc_id
                   AND fields.ordinal = best.ordinal
               )"""

HITS = f"""
    /* indexd:search.words_hits */
        WITH best AS (
            SELECT chunks.doc_id, chunks.ordinal, chunks.chunk_id, chunks.ingested_at,
                   coalesce(chunks.half_life_seconds, %(half_life)s::float8) AS half_life,
                   chosen.similarity, chosen.score, chosen.place
              FROM unnest(
                    %(doc_ids)s::text[], %(chunk_ids)s::text[], %(similarities)s::float8[],
                    %(scores)s::float8[]
                   ) WITH ORDINALITY AS chosen (doc_id, chunk_id, similarity, score, place)
              JOIN indexd.chunks
                ON chunks.namespace = %(namespace)s
               AND chunks.doc_id = chosen.doc_id COLLATE "C"
               AND chunks.chunk_id = chosen.chunk_id COLLATE "C"
        )
        SELECT {hits.columns(_SHARES)}
          FROM best
          JOIN indexd.chunks AS chunk
            ON chunk.namespace = %(namespace)s
           AND chunk.doc_id = best.doc_id
           AND chunk.ordinal = best.ordinal
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = best.doc_id
         ORDER BY best.place
"""
"""Hits of given keys, in their order and with their scores."""

FORMS = """
    /* indexd:search.forms */
    SELECT form,
           array_agg(lexeme) AS lexemes
      FROM unnest(%(forms)s::text[]) AS form
     CROSS JOIN LATERAL indexd.lexemes(form)
     WHERE lexeme = ANY(%(lexemes)s)
     GROUP BY form
"""
"""Those of some forms of words that have one of the lexemes."""
