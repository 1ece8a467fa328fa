/* indexd:forgetting.purge_rank */
WITH RECURSIVE
-- The document, its decay, and how many half-lives old that makes it.
own AS MATERIALIZED (
    SELECT ingested_at,
           doc_id,
           'retention' AS reason,
           score,
           CASE WHEN score = 0 THEN 999 ELSE ln(score) / ln(0.5::float8) END AS half_lives
      FROM (
            SELECT ingested_at, doc_id, indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS score
              FROM indexd.documents
             WHERE documents.namespace = %(namespace)s
               AND documents.doc_id = %(doc_id)s
               AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
           ) AS found
),
-- The different half-lives that documents of the namespace have of their own, ascending. Each
-- step finds the next one in an index. There is one step beyond the last, whose half-life is
-- NULL, and none beyond 1,000 half-lives.
half_lives (half_life_seconds, place) AS (
    (
        SELECT half_life_seconds, 1
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND half_life_seconds > 0
         ORDER BY half_life_seconds
         LIMIT 1
    )
    UNION ALL
    SELECT (
            SELECT documents.half_life_seconds
              FROM indexd.documents
             WHERE documents.namespace = %(namespace)s
               AND documents.half_life_seconds > half_lives.half_life_seconds
             ORDER BY documents.half_life_seconds
             LIMIT 1
           ),
           place + 1
      FROM half_lives
     WHERE half_life_seconds IS NOT NULL
       AND place <= 1000
),
slices AS (
    -- Documents that take the half-life of the policy.
    SELECT slice.*
      FROM own
     CROSS JOIN LATERAL (
    SELECT
           count(*) FILTER (WHERE (indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id)) AS before,
           count(*) FILTER (
               WHERE coalesce(documents.ingested_at < %(expires_before)s::timestamptz, false)
                  OR ((indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id) AND documents.ingested_at <= %(graced_after)s)
           ) AS leaving_before
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND half_life_seconds IS NULL
       AND ingested_at <= greatest(
                    to_timestamp(least(greatest(
                        date_part('epoch', %(at)s::timestamptz)
                        - least(%(half_life)s::float8, 1e15::float8)
                        * (own.half_lives * (1 - 1e-12::float8) - 1e-12::float8)
                        + 1,
                    -1e11::float8), 1e12::float8)),
                    CASE WHEN own.score >= 1 THEN own.ingested_at END,
                    %(expires_before)s::timestamptz
                )
           ) AS slice
    UNION ALL
    -- Those of each half-life of their own, if there are few different ones.
    SELECT slice.*
      FROM own
     CROSS JOIN half_lives
     CROSS JOIN LATERAL (
    SELECT
           count(*) FILTER (WHERE (indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id)) AS before,
           count(*) FILTER (
               WHERE coalesce(documents.ingested_at < %(expires_before)s::timestamptz, false)
                  OR ((indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id) AND documents.ingested_at <= %(graced_after)s)
           ) AS leaving_before
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND half_life_seconds = half_lives.half_life_seconds
       AND ingested_at <= greatest(
                    to_timestamp(least(greatest(
                        date_part('epoch', %(at)s::timestamptz)
                        - least(half_lives.half_life_seconds, 1e15::float8)
                        * (own.half_lives * (1 - 1e-12::float8) - 1e-12::float8)
                        + 1,
                    -1e11::float8), 1e12::float8)),
                    CASE WHEN own.score >= 1 THEN own.ingested_at END,
                    %(expires_before)s::timestamptz
                )
           ) AS slice
     WHERE half_lives.half_life_seconds IS NOT NULL
       AND (SELECT max(place) FROM half_lives) <= 1000
    UNION ALL
    -- If there are many: all of these, in one pass.
    SELECT slice.*
      FROM own
     CROSS JOIN LATERAL (
    SELECT
           count(*) FILTER (WHERE (indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id)) AS before,
           count(*) FILTER (
               WHERE coalesce(documents.ingested_at < %(expires_before)s::timestamptz, false)
                  OR ((indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id) AND documents.ingested_at <= %(graced_after)s)
           ) AS leaving_before
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND half_life_seconds IS NOT NULL
       AND (SELECT max(place) FROM half_lives) > 1000
           ) AS slice
    UNION ALL
    -- Those that expired are taken off again: an index holds only documents that expire.
    SELECT -before, -leaving_before
      FROM own
     CROSS JOIN LATERAL (
    SELECT
           count(*) FILTER (WHERE (indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id)) AS before,
           count(*) FILTER (
               WHERE coalesce(documents.ingested_at < %(expires_before)s::timestamptz, false)
                  OR ((indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ), documents.ingested_at, documents.doc_id)
                     < (own.score, own.ingested_at, own.doc_id) AND documents.ingested_at <= %(graced_after)s)
           ) AS leaving_before
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND expires_at <= %(at)s
           ) AS slice
),
counted AS (
    SELECT sum(before)::bigint AS before,
           sum(leaving_before)::bigint AS leaving_before
      FROM slices
)
SELECT before,
       leaving_before,
       own.reason,
       NOT coalesce(own.ingested_at < %(expires_before)s::timestamptz, false) AND own.ingested_at <= %(graced_after)s AS may_leave
  FROM own
 CROSS JOIN counted
