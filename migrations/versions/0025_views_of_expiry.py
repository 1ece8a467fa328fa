"""The views for admins know of expiry."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

VIEWS = {
    "documents_by_decay": """
        SELECT documents.namespace,
               documents.doc_id,
               documents.ingested_at,
               greatest(date_part('epoch', now() - documents.ingested_at), 0) AS age_seconds,
               coalesce(documents.half_life_seconds, policy.half_life_seconds)
                   AS half_life_seconds,
               indexd.decay(
                   documents.ingested_at,
                   coalesce(documents.half_life_seconds, policy.half_life_seconds),
                   now()
               ) AS decay_factor,
               documents.expires_at
          FROM indexd.documents
          JOIN indexd.policies_in_force AS policy USING (namespace)
        """,
    "purge_order": """
        SELECT scored.namespace,
               row_number() OVER (
                   PARTITION BY scored.namespace
                   ORDER BY scored.irrelevant_since IS NULL,
                            CASE WHEN scored.purge_strategy = 'lowest_score'
                                 THEN scored.score END,
                            scored.ingested_at,
                            scored.doc_id
               ) AS place,
               scored.doc_id,
               scored.ingested_at,
               scored.score,
               scored.irrelevant_since
          FROM (
                SELECT documents.namespace,
                       documents.doc_id,
                       documents.ingested_at,
                       policy.purge_strategy,
                       indexd.score(
                           CASE WHEN policy.semantic IS NULL THEN 1
                                ELSE coalesce(relevance.smoothed_score, 0.5) END,
                           documents.ingested_at,
                           coalesce(documents.half_life_seconds, policy.half_life_seconds),
                           now()
                       ) AS score,
                       CASE WHEN policy.semantic IS NOT NULL
                            THEN relevance.irrelevant_since END AS irrelevant_since
                  FROM indexd.documents
                  JOIN indexd.policies_in_force AS policy USING (namespace)
                  LEFT JOIN indexd.relevance USING (namespace, doc_id)
                 WHERE documents.expires_at IS NULL
                    OR documents.expires_at > now()
               ) AS scored
        """,
    "retention_status": """
        SELECT namespaces.namespace,
               namespaces.documents,
               namespaces.chunks,
               policy.half_life_seconds,
               policy.max_age_seconds,
               aged.expired,
               policy.max_items,
               greatest(namespaces.documents - aged.expired - policy.max_items, 0) AS surplus,
               policy.purge_strategy,
               aged.oldest,
               aged.newest
          FROM indexd.namespaces
          JOIN indexd.policies_in_force AS policy USING (namespace)
         CROSS JOIN LATERAL (
                SELECT count(*) FILTER (
                           WHERE date_part('epoch', now() - ingested_at) > policy.max_age_seconds
                              OR expires_at <= now()
                       ) AS expired,
                       min(ingested_at) AS oldest,
                       max(ingested_at) AS newest
                  FROM indexd.documents
                 WHERE documents.namespace = namespaces.namespace
               ) AS aged
        """,
}

BEFORE = {
    "purge_order": """
        SELECT scored.namespace,
               row_number() OVER (
                   PARTITION BY scored.namespace
                   ORDER BY scored.irrelevant_since IS NULL,
                            CASE WHEN scored.purge_strategy = 'lowest_score'
                                 THEN scored.score END,
                            scored.ingested_at,
                            scored.doc_id
               ) AS place,
               scored.doc_id,
               scored.ingested_at,
               scored.score,
               scored.irrelevant_since
          FROM (
                SELECT documents.namespace,
                       documents.doc_id,
                       documents.ingested_at,
                       policy.purge_strategy,
                       indexd.score(
                           CASE WHEN policy.semantic IS NULL THEN 1
                                ELSE coalesce(relevance.smoothed_score, 0.5) END,
                           documents.ingested_at,
                           coalesce(documents.half_life_seconds, policy.half_life_seconds),
                           now()
                       ) AS score,
                       CASE WHEN policy.semantic IS NOT NULL
                            THEN relevance.irrelevant_since END AS irrelevant_since
                  FROM indexd.documents
                  JOIN indexd.policies_in_force AS policy USING (namespace)
                  LEFT JOIN indexd.relevance USING (namespace, doc_id)
               ) AS scored
        """,
    "retention_status": """
        SELECT namespaces.namespace,
               namespaces.documents,
               namespaces.chunks,
               policy.half_life_seconds,
               policy.max_age_seconds,
               aged.expired,
               policy.max_items,
               greatest(namespaces.documents - aged.expired - policy.max_items, 0) AS surplus,
               policy.purge_strategy,
               aged.oldest,
               aged.newest
          FROM indexd.namespaces
          JOIN indexd.policies_in_force AS policy USING (namespace)
         CROSS JOIN LATERAL (
                SELECT count(*) FILTER (
                           WHERE date_part('epoch', now() - ingested_at) > policy.max_age_seconds
                       ) AS expired,
                       min(ingested_at) AS oldest,
                       max(ingested_at) AS newest
                  FROM indexd.documents
                 WHERE documents.namespace = namespaces.namespace
               ) AS aged
        """,
}

DECAY_BEFORE = """
        SELECT documents.namespace,
               documents.doc_id,
               documents.ingested_at,
               greatest(date_part('epoch', now() - documents.ingested_at), 0) AS age_seconds,
               coalesce(documents.half_life_seconds, policy.half_life_seconds)
                   AS half_life_seconds,
               indexd.decay(
                   documents.ingested_at,
                   coalesce(documents.half_life_seconds, policy.half_life_seconds),
                   now()
               ) AS decay_factor
          FROM indexd.documents
          JOIN indexd.policies_in_force AS policy USING (namespace)
        """


def upgrade() -> None:
    for name, query in VIEWS.items():
        op.execute(f"CREATE OR REPLACE VIEW indexd.{name} AS {query}")


def downgrade() -> None:
    for name, query in BEFORE.items():
        op.execute(f"CREATE OR REPLACE VIEW indexd.{name} AS {query}")
    # A column cannot be taken from a view.
    op.execute("DROP VIEW indexd.documents_by_decay")
    op.execute(f"CREATE VIEW indexd.documents_by_decay AS {DECAY_BEFORE}")
    op.execute(
        "COMMENT ON VIEW indexd.documents_by_decay IS "
        "'Every document with its age and what is left of its relevance now; "
        "ORDER BY decay_factor shows the most faded'"
    )
