"""What an admin asks for in psql, in one SELECT each."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

VIEWS = (
    (
        "policies_in_force",
        "One row per namespace: the policy that holds there, its own or the default one",
        """
        SELECT namespaces.namespace,
               policy.namespace = '' AS is_default,
               policy.half_life_seconds,
               policy.max_items,
               policy.max_age_seconds,
               policy.purge_strategy,
               coalesce(policy.grace_seconds, 0) AS grace_seconds,
               policy.semantic
          FROM indexd.namespaces
          LEFT JOIN LATERAL (
                SELECT *
                  FROM indexd.retention_policies
                 WHERE retention_policies.namespace IN (namespaces.namespace, '')
                 ORDER BY retention_policies.namespace DESC
                 LIMIT 1
               ) AS policy
            ON true
        """,
    ),
    (
        "documents_by_decay",
        "Every document with its age and what is left of its relevance now; "
        "ORDER BY decay_factor shows the most faded",
        """
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
        """,
    ),
    (
        "purge_order",
        "The order in which max_items takes documents, per namespace; place 1 is the next. "
        "score is decay x relevance, and relevance is 1 without a semantic policy",
        """
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
    ),
    (
        "retention_status",
        "One row per namespace: what it holds, what its policy allows, and how many documents the "
        "next upsert would take by age (expired) and by number (surplus)",
        """
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
    ),
    (
        "forget_log",
        "Every document that left: when, why, by whom. ORDER BY at DESC shows the latest",
        """
        SELECT events.at,
               events.namespace,
               documents.doc_id,
               events.kind,
               events.reason,
               events.strategy,
               events.actor,
               documents.ingested_at,
               events.event_id
          FROM indexd.forget_events AS events
          JOIN indexd.forgotten_documents AS documents USING (namespace, event_id)
        """,
    ),
)


def upgrade() -> None:
    for name, comment, query in VIEWS:
        op.execute(f"CREATE VIEW indexd.{name} AS {query}")
        op.execute(f"COMMENT ON VIEW indexd.{name} IS '{comment}'")


def downgrade() -> None:
    for name, _, _ in reversed(VIEWS):
        op.execute(f"DROP VIEW indexd.{name}")
