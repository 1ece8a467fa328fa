/* indexd:facets.values */
WITH chosen AS MATERIALIZED (
    SELECT doc_id, ingested_at
      FROM indexd.documents AS document
     WHERE document.namespace = %(namespace)s
       AND (document.doc_id = ANY(%(doc_ids)s::text[]) AND document.ingested_at > %(ingested_after)s::timestamptz AND document.ingested_at < %(ingested_before)s::timestamptz AND EXISTS (
        SELECT 1
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = document.doc_id
           AND (
    fields.filter_keys && indexd.filter_keys_of(
        %(namespace)s, 'tag', %(tags)s::text[]
    )
    AND EXISTS (
        SELECT 1
          FROM unnest(fields.tags) AS tag
         CROSS JOIN unnest(%(tags)s::text[]) AS wanted
         WHERE tag = wanted OR starts_with(tag, wanted || '/')
    )
)
       ) AND EXISTS (
        SELECT 1
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = document.doc_id
           AND
    fields.filter_keys && indexd.filter_keys_of(
        %(namespace)s, 'source_path', %(source_path)s::text[]
    )
    AND fields.source_path = ANY(%(source_path)s::text[])
       ) AND EXISTS (
        SELECT 1
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = document.doc_id
           AND fields.meta @> %(meta)s::jsonb
       ) AND document.source_ref_origin = ANY(%(source_ref_origin)s::text[]))
       AND (hashtextextended(doc_id, 0) & %(mask)s) < %(share)s
),
found_0 AS MATERIALIZED (
    SELECT doc_id, value AS same, min(value::text COLLATE "C") AS shown
      FROM (
            SELECT chosen.doc_id, value
              FROM chosen
              JOIN indexd.chunk_fields AS fields
                ON fields.namespace = %(namespace)s
               AND fields.doc_id = chosen.doc_id
             CROSS JOIN LATERAL (SELECT to_jsonb(unnest(fields.tags)) AS value) AS one
           ) AS every
     WHERE jsonb_typeof(value) <> 'null'
     GROUP BY doc_id, same
),
counted_0 AS MATERIALIZED (
    SELECT same, min(shown COLLATE "C") AS shown, count(*) AS documents
      FROM found_0
     GROUP BY same
),
ranked_0 AS (
    SELECT *, sum(octet_length(shown) + 32) OVER (ORDER BY rank) AS bytes
      FROM (
            SELECT shown,
                   documents,
                   row_number() OVER (
                       ORDER BY documents DESC,
                                CASE
                                    WHEN jsonb_typeof(same) = 'number'
                                    THEN (same #>> '{}')::numeric
                                END NULLS LAST,
                                (shown::jsonb #>> '{}') COLLATE "C",
                                shown COLLATE "C"
                   ) AS rank
              FROM counted_0
           ) AS ordered
),
facet_0 AS (
    SELECT 0 AS place,
           (SELECT count(*) FROM counted_0) AS "values",
           (SELECT count(DISTINCT doc_id) FROM found_0) AS present,
           (
            SELECT coalesce(
                       jsonb_agg(
                           jsonb_build_object('value', shown::jsonb, 'documents', documents)
                           ORDER BY rank
                       ),
                       '[]'
                   )
              FROM ranked_0
             WHERE rank <= %(limit)s
               AND bytes <= %(max_bytes)s
           ) AS first,
           extent.*
      FROM (
            SELECT min((same #>> '{}')::numeric) FILTER (WHERE number)::float8 AS least,
                   max((same #>> '{}')::numeric) FILTER (WHERE number)::float8 AS greatest,
                   min((same ->> 't')::bigint) FILTER (WHERE time) AS earliest,
                   max((same ->> 't')::bigint) FILTER (WHERE time) AS latest
              FROM (
                    SELECT same,
                           jsonb_typeof(same) = 'number' AS number,
                           jsonb_typeof(same) = 'object' AND same ? 't' AS time
                      FROM counted_0
                   ) AS kinds
           ) AS extent
),
found_1 AS MATERIALIZED (
    SELECT doc_id, indexd.comparable(value) AS same, min(value::text COLLATE "C") AS shown
      FROM (
            SELECT chosen.doc_id, value
              FROM chosen
              JOIN indexd.chunk_fields AS fields
                ON fields.namespace = %(namespace)s
               AND fields.doc_id = chosen.doc_id
             CROSS JOIN LATERAL (SELECT fields.meta -> %(key_1_0)s::text AS found) AS one
             CROSS JOIN LATERAL jsonb_array_elements(
                CASE jsonb_typeof(found)
                    WHEN 'array' THEN found
                    ELSE jsonb_build_array(found)
                END
             ) AS value
             WHERE found IS NOT NULL
           ) AS every
     WHERE jsonb_typeof(value) <> 'null'
     GROUP BY doc_id, same
),
counted_1 AS MATERIALIZED (
    SELECT same, min(shown COLLATE "C") AS shown, count(*) AS documents
      FROM found_1
     GROUP BY same
),
ranked_1 AS (
    SELECT *, sum(octet_length(shown) + 32) OVER (ORDER BY rank) AS bytes
      FROM (
            SELECT shown,
                   documents,
                   row_number() OVER (
                       ORDER BY documents DESC,
                                CASE
                                    WHEN jsonb_typeof(same) = 'number'
                                    THEN (same #>> '{}')::numeric
                                END NULLS LAST,
                                (shown::jsonb #>> '{}') COLLATE "C",
                                shown COLLATE "C"
                   ) AS rank
              FROM counted_1
           ) AS ordered
),
facet_1 AS (
    SELECT 1 AS place,
           (SELECT count(*) FROM counted_1) AS "values",
           (SELECT count(DISTINCT doc_id) FROM found_1) AS present,
           (
            SELECT coalesce(
                       jsonb_agg(
                           jsonb_build_object('value', shown::jsonb, 'documents', documents)
                           ORDER BY rank
                       ),
                       '[]'
                   )
              FROM ranked_1
             WHERE rank <= %(limit)s
               AND bytes <= %(max_bytes)s
           ) AS first,
           extent.*
      FROM (
            SELECT min((same #>> '{}')::numeric) FILTER (WHERE number)::float8 AS least,
                   max((same #>> '{}')::numeric) FILTER (WHERE number)::float8 AS greatest,
                   min((same ->> 't')::bigint) FILTER (WHERE time) AS earliest,
                   max((same ->> 't')::bigint) FILTER (WHERE time) AS latest
              FROM (
                    SELECT same,
                           jsonb_typeof(same) = 'number' AS number,
                           jsonb_typeof(same) = 'object' AND same ? 't' AS time
                      FROM counted_1
                   ) AS kinds
           ) AS extent
),
found_2 AS MATERIALIZED (
    SELECT doc_id, value AS same, min(value::text COLLATE "C") AS shown
      FROM (
            SELECT doc_id, to_jsonb((extract(epoch FROM ingested_at) * 1000000)::bigint) AS value
              FROM chosen
           ) AS every
     WHERE jsonb_typeof(value) <> 'null'
     GROUP BY doc_id, same
),
counted_2 AS MATERIALIZED (
    SELECT same, min(shown COLLATE "C") AS shown, count(*) AS documents
      FROM found_2
     GROUP BY same
),
ranked_2 AS (
    SELECT *, sum(octet_length(shown) + 32) OVER (ORDER BY rank) AS bytes
      FROM (
            SELECT shown,
                   documents,
                   row_number() OVER (
                       ORDER BY documents DESC,
                                CASE
                                    WHEN jsonb_typeof(same) = 'number'
                                    THEN (same #>> '{}')::numeric
                                END NULLS LAST,
                                (shown::jsonb #>> '{}') COLLATE "C",
                                shown COLLATE "C"
                   ) AS rank
              FROM counted_2
           ) AS ordered
),
facet_2 AS (
    SELECT 2 AS place,
           (SELECT count(*) FROM counted_2) AS "values",
           (SELECT count(DISTINCT doc_id) FROM found_2) AS present,
           (
            SELECT coalesce(
                       jsonb_agg(
                           jsonb_build_object('value', shown::jsonb, 'documents', documents)
                           ORDER BY rank
                       ),
                       '[]'
                   )
              FROM ranked_2
             WHERE rank <= %(limit)s
               AND bytes <= %(max_bytes)s
           ) AS first,
           extent.*
      FROM (
            SELECT min((same #>> '{}')::numeric) FILTER (WHERE number)::float8 AS least,
                   max((same #>> '{}')::numeric) FILTER (WHERE number)::float8 AS greatest,
                   min((same ->> 't')::bigint) FILTER (WHERE time) AS earliest,
                   max((same ->> 't')::bigint) FILTER (WHERE time) AS latest
              FROM (
                    SELECT same,
                           jsonb_typeof(same) = 'number' AS number,
                           jsonb_typeof(same) = 'object' AND same ? 't' AS time
                      FROM counted_2
                   ) AS kinds
           ) AS extent
)
SELECT facets.*, (SELECT count(*) FROM chosen) AS documents
  FROM (
SELECT * FROM facet_0
 UNION ALL
SELECT * FROM facet_1
 UNION ALL
SELECT * FROM facet_2
       ) AS facets
 ORDER BY place
