"""The tables of schema `indexd`, as SQLAlchemy metadata.

`alembic check` compares a database with it. The migrations give the reasons behind each object.
"""

from pgvector.sqlalchemy import SPARSEVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

SCHEMA = "indexd"

metadata = MetaData(schema=SCHEMA)


def _key(name: str) -> Column[str]:
    """A text column of a key. It is compared by code point, independent of the locale."""
    return Column(name, Text(collation="C"), nullable=False)


namespaces = Table(
    "namespaces",
    metadata,
    _key("namespace"),
    Column("dimension", Integer),
    Column("documents", BigInteger, nullable=False, server_default=text("0")),
    Column("chunks", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column(
        "index_mode",
        Text,
        nullable=False,
        server_default=text("'auto'"),
        comment="auto: by size; always, never: as an admin decided with "
        "`indexd index build | drop`",
    ),
    Column(
        "chunks_removed",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Chunks that were ever deleted or replaced",
    ),
    Column(
        "index_built_at",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Deprecated, for programs of the release before: chunks_removed_at_build under its "
        "old name. The next release drops it.",
    ),
    Column(
        "embedding_model",
        Text,
        comment="What the vectors were made by; NULL while nobody named it",
    ),
    Column(
        "embedding_revision",
        Text,
        comment="Which weights of embedding_model; NULL where that is not known",
    ),
    Column(
        "chunks_removed_at_build",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Number of chunks: chunks_removed when the HNSW index was last built; what was "
        "removed since, its graph still holds",
    ),
    Column(
        "writes_paused_until",
        DateTime(timezone=True),
        comment="Upserts are refused (503) before this time, while `indexd reembed` embeds the "
        "texts that were written last; NULL or past: not paused",
    ),
    Column(
        "generation",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Number that chunks which are written now get as theirs",
    ),
    Column(
        "index_serves",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether a valid HNSW index for the dimension was there when the index keeper "
        "looked last",
    ),
    Column(
        "weak",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether all vectors come from the embedder that comes along: then the first "
        "vector of a client that has another dimension, or names another model, takes their place",
    ),
    Column(
        "words_average",
        Double,
        comment="Average length, in words, that the impacts of chunk_fields.lex are taken against; "
        "NULL: 60",
    ),
    Column(
        "words_reweighing",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether impacts are being rewritten for another average",
    ),
    Column("words_chunks", BigInteger, comment="Number of chunks when the terms were counted last"),
    Column(
        "words_removed",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Number of chunks that had ever been removed when the terms were counted last",
    ),
    Column(
        "words_counted_at",
        DateTime(timezone=True),
        comment="When the terms were counted last; NULL: each search counts those it asks for",
    ),
    PrimaryKeyConstraint("namespace", name="pk_namespaces"),
    CheckConstraint(
        "embedding_revision IS NULL OR embedding_model IS NOT NULL",
        name="ck_namespaces_embedding_revision",
    ),
    CheckConstraint("index_mode IN ('auto', 'always', 'never')", name="ck_namespaces_index_mode"),
    CheckConstraint("dimension BETWEEN 1 AND 16000", name="ck_namespaces_dimension"),
    comment="One row per namespace ever written to. dimension is fixed while it holds documents; "
    "documents and chunks are kept by every write, updated last in its transaction.",
)

documents = Table(
    "documents",
    metadata,
    _key("namespace"),
    _key("doc_id"),
    Column("ingested_at", DateTime(timezone=True), nullable=False),
    Column("half_life_seconds", Double),
    Column("chunk_count", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("source_ref_origin", Text),
    Column("source_ref_id", Text),
    Column("source_ref_offset", Text),
    Column("source_ref_trust_level", Text),
    Column("source_ref_injected_by", Text),
    Column("meta", JSONB, nullable=False),
    Column(
        "version",
        BigInteger,
        nullable=False,
        server_default=text("1"),
        comment="One more at each change; a document that comes back goes on after the log of the "
        "forgotten",
    ),
    Column(
        "created_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("now()"),
        comment="Time of the first write by the clock of the server; of documents that were there "
        "before this column, the time of the upgrade",
    ),
    Column(
        "expires_at",
        DateTime(timezone=True),
        comment="Time from which the document is answered nowhere; NULL: it does not expire",
    ),
    PrimaryKeyConstraint("namespace", "doc_id", name="pk_documents"),
    CheckConstraint(
        "half_life_seconds > 0 AND half_life_seconds < 'infinity'", name="ck_documents_half_life"
    ),
    CheckConstraint(
        "(source_ref_origin IS NULL) = (source_ref_id IS NULL)", name="ck_documents_source_ref"
    ),
    comment="What was upserted, beside its chunks. half_life_seconds is the document's own and "
    "overrides the namespace's; digest is over all a client sent, to recognise a document "
    "that is sent again unchanged.",
)

Index(
    "ix_documents_ingested_at", documents.c.namespace, documents.c.ingested_at, documents.c.doc_id
)
Index(
    "ix_documents_expires_at",
    documents.c.namespace,
    documents.c.expires_at,
    documents.c.doc_id,
    postgresql_where=text("expires_at IS NOT NULL"),
)
Index("ix_documents_created_at", documents.c.namespace, documents.c.created_at, documents.c.doc_id)
Index(
    "ix_documents_half_life",
    documents.c.namespace,
    documents.c.half_life_seconds,
    documents.c.ingested_at,
    documents.c.doc_id,
)

chunks = Table(
    "chunks",
    metadata,
    _key("namespace"),
    _key("doc_id"),
    Column("ordinal", Integer, nullable=False),
    Column("ingested_at", DateTime(timezone=True), nullable=False),
    Column("half_life_seconds", Double),
    Column("embedding", VECTOR()),
    _key("chunk_id"),
    Column("source_ref_origin", Text),
    Column("source_path", Text),
    Column("tags", ARRAY(Text), nullable=False),
    Column("meta", JSONB, nullable=False),
    Column("text", Text, nullable=False),
    Column("words", TSVECTOR, Computed("indexd.words(text)", persisted=True), nullable=False),
    Column(
        "filter_keys",
        ARRAY(BigInteger),
        Computed(
            "indexd.filter_keys(namespace, tags, source_path, source_ref_origin)", persisted=True
        ),
        nullable=False,
    ),
    Column(
        "half_life_class",
        SmallInteger,
        Computed(
            "CASE WHEN half_life_seconds IS NULL THEN 32767 "
            "ELSE ceil(ln(half_life_seconds) / ln(2::double precision)) END::smallint",
            persisted=True,
        ),
        nullable=False,
        comment="The own half-life is at most 2 ^ half_life_class seconds; 32767 without one",
    ),
    Column(
        "generation",
        Integer,
        comment="Number of the batch that the chunk was written in, by which an HNSW index may "
        "cover what was there when it was built; NULL: written by a program of the release before",
    ),
    PrimaryKeyConstraint("namespace", "doc_id", "ordinal", name="pk_chunks"),
    comment="The unit that is searched. embedding is L2-normalised, so -(embedding <#> query) is "
    "the cosine; ingested_at, half_life_seconds and source_ref_origin are copies of the "
    "document's, so that a search needs no join; meta is without the embedding.",
)

Index("ix_chunks_ingested_at", chunks.c.namespace, chunks.c.ingested_at.desc())
Index(
    "ix_chunks_half_life_class",
    chunks.c.namespace,
    chunks.c.half_life_class,
    chunks.c.ingested_at.desc(),
)
chunk_fields = Table(
    "chunk_fields",
    metadata,
    _key("namespace"),
    _key("doc_id"),
    Column("ordinal", Integer, nullable=False),
    Column("ingested_at", DateTime(timezone=True), nullable=False),
    Column("half_life_seconds", Double),
    Column(
        "half_life_class",
        SmallInteger,
        Computed(
            "CASE WHEN half_life_seconds IS NULL THEN 32767 "
            "ELSE ceil(ln(half_life_seconds) / ln(2::double precision)) END::smallint",
            persisted=True,
        ),
        nullable=False,
        comment="The own half-life is at most 2 ^ half_life_class seconds; 32767 without one",
    ),
    Column("source_ref_origin", Text),
    Column("source_path", Text),
    Column(
        "tags",
        ARRAY(Text),
        nullable=False,
        comment="The chunk's tags and its document's, each once",
    ),
    Column(
        "meta",
        JSONB,
        nullable=False,
        comment="The document's meta with the chunk's over it, at the first level",
    ),
    Column(
        "filter_keys",
        ARRAY(BigInteger),
        Computed(
            "indexd.filter_keys(namespace, tags, source_path, source_ref_origin)", persisted=True
        ),
        nullable=False,
    ),
    Column("lex", SPARSEVEC(), comment="Impacts of the terms by BM25; NULL: not filled yet"),
    Column(
        "terms",
        ARRAY(Integer),
        comment="Numbers of the lexemes of the text, by indexd.term; NULL: not filled yet",
    ),
    Column("length", Integer, comment="Number of the words of the text, without numbers"),
    PrimaryKeyConstraint("namespace", "doc_id", "ordinal", name="pk_chunk_fields"),
    comment="What filters and words read of a chunk, its own and its document's. Beside the chunk, "
    "because updating a row that an HNSW index covers costs about 100 times an ordinary update. "
    "Rows without a chunk mean nothing: every statement comes from the chunk or the document.",
)

Index("ix_chunk_fields_filter_keys", chunk_fields.c.filter_keys, postgresql_using="gin")
Index(
    "ix_chunk_fields_meta",
    chunk_fields.c.meta,
    postgresql_using="gin",
    postgresql_ops={"meta": "jsonb_path_ops"},
)

Index("ix_chunk_fields_terms", chunk_fields.c.terms, postgresql_using="gin")
Index(
    "ix_chunk_fields_unweighed",
    chunk_fields.c.namespace,
    chunk_fields.c.doc_id,
    chunk_fields.c.ordinal,
    postgresql_where=text("lex IS NULL"),
)

term_counts = Table(
    "term_counts",
    metadata,
    _key("namespace"),
    Column("term", Integer, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    PrimaryKeyConstraint("namespace", "term", name="pk_term_counts"),
    comment="In how many chunks of a namespace each term is. Counted by the index keeper when the "
    "namespace has changed by a tenth; no write updates it.",
)

retention_policies = Table(
    "retention_policies",
    metadata,
    _key("namespace"),
    Column("half_life_seconds", Double),
    Column("max_items", BigInteger),
    Column("max_age_seconds", Double),
    Column("purge_strategy", Text),
    Column("grace_seconds", Double, nullable=False, server_default=text("0")),
    Column("semantic", JSONB),
    Column("policy_hash", Text, nullable=False),
    Column("source", Text, nullable=False),
    PrimaryKeyConstraint("namespace", name="pk_retention_policies"),
    CheckConstraint(
        "half_life_seconds > 0 AND half_life_seconds < 'infinity'",
        name="ck_retention_policies_half_life",
    ),
    CheckConstraint("max_items >= 1", name="ck_retention_policies_max_items"),
    CheckConstraint(
        "max_age_seconds > 0 AND max_age_seconds < 'infinity'",
        name="ck_retention_policies_max_age",
    ),
    CheckConstraint(
        "purge_strategy IN ('oldest', 'lowest_score')",
        name="ck_retention_policies_purge_strategy",
    ),
    CheckConstraint(
        "grace_seconds >= 0 AND grace_seconds < 'infinity'", name="ck_retention_policies_grace"
    ),
    comment="The policy file, as the last start or `indexd policy apply` loaded it. The row with "
    "the empty name holds the defaults, for every namespace that has no row of its own.",
)

reembedded = Table(
    "reembedded",
    metadata,
    _key("namespace"),
    Column("text_digest", LargeBinary, nullable=False),
    Column("embedding", VECTOR(), nullable=False),
    Column("embedding_model", Text, nullable=False),
    Column("embedding_revision", Text),
    PrimaryKeyConstraint("namespace", "text_digest", name="pk_reembedded"),
    comment="Vectors that `indexd reembed` made and has not put in place yet, by the SHA-256 of "
    "the chunk text. They are deleted in the transaction that puts them in place.",
)

chunk_ages = Table(
    "chunk_ages",
    metadata,
    _key("namespace"),
    Column("half_life_class", SmallInteger, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    Column("quantiles", ARRAY(Double), nullable=False),
    Column("counted_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("namespace", "half_life_class", name="pk_chunk_ages"),
    comment="How the chunks of indexed namespaces are spread over time: quantiles of ingested_at "
    "in seconds since 1970. Kept by the index keeper; only steers searches.",
)

forget_events = Table(
    "forget_events",
    metadata,
    _key("namespace"),
    Column("event_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("filter", JSONB),
    Column("strategy", Text),
    Column("forgotten_count", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    PrimaryKeyConstraint("namespace", "event_id", name="pk_forget_events"),
    CheckConstraint(
        "kind IN ('manual', 'ttl', 'retention', 'semantic', 'delete')", name="ck_forget_events_kind"
    ),
    comment="One row per deletion and namespace, written in the transaction that deletes. "
    "Holds no text and no vector of what was forgotten.",
)

forgotten_documents = Table(
    "forgotten_documents",
    metadata,
    _key("namespace"),
    Column("event_id", Uuid, nullable=False),
    _key("doc_id"),
    Column("ingested_at", DateTime(timezone=True), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column(
        "version",
        BigInteger,
        comment="Of the version that left; NULL where a program of the release before deleted it",
    ),
    PrimaryKeyConstraint("namespace", "event_id", "doc_id", name="pk_forgotten_documents"),
    comment="Which documents an event removed; digest is that of the version that left.",
)

Index(
    "ix_forgotten_documents_version",
    forgotten_documents.c.namespace,
    forgotten_documents.c.doc_id,
    forgotten_documents.c.version,
)

Index(
    "ix_forget_events_at",
    forget_events.c.at.desc(),
    forget_events.c.event_id.desc(),
    forget_events.c.namespace.desc(),
)

relevance = Table(
    "relevance",
    metadata,
    _key("namespace"),
    _key("doc_id"),
    Column("exposures", BigInteger, nullable=False),
    Column("hits", BigInteger, nullable=False),
    Column("days", Integer, nullable=False),
    Column("last_exposed_at", DateTime(timezone=True), nullable=False),
    Column("best_score", Double, nullable=False),
    Column("smoothed_score", Double, nullable=False),
    Column(
        "judged_useful",
        Boolean,
        comment="The last word of POST /index/feedback; it outweighs what was counted",
    ),
    Column("irrelevant_since", DateTime(timezone=True)),
    PrimaryKeyConstraint("namespace", "doc_id", name="pk_relevance"),
    CheckConstraint("smoothed_score BETWEEN 0 AND 1", name="ck_relevance_smoothed_score"),
    comment="How often a document was among the results of searches (exposures, on how many "
    "days), how often with a good score (hits), and the best and the smoothed similarity. Written "
    "in the background; gone with the document, and when its content changes.",
)

Index(
    "ix_relevance_irrelevant",
    relevance.c.namespace,
    relevance.c.irrelevant_since,
    relevance.c.doc_id,
    postgresql_where=text("irrelevant_since IS NOT NULL"),
)

forget_plans = Table(
    "forget_plans",
    metadata,
    _key("namespace"),
    Column("plan_id", Uuid, nullable=False),
    Column("filter", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("namespace", "plan_id", name="pk_forget_plans"),
    comment="Dry runs of forget that may still be carried out. The namespace is that of the "
    "filter, empty for all.",
)

forget_plan_documents = Table(
    "forget_plan_documents",
    metadata,
    _key("namespace"),
    Column("plan_id", Uuid, nullable=False),
    _key("doc_id"),
    Column("ingested_at", DateTime(timezone=True), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column(
        "version",
        BigInteger,
        comment="Version of the document that was seen; NULL: planned by a program of the release "
        "before",
    ),
    PrimaryKeyConstraint("namespace", "plan_id", "doc_id", name="pk_forget_plan_documents"),
    comment="The documents of a plan, in the version that was seen: ingested_at and digest.",
)

Index("ix_forget_plan_documents_plan", forget_plan_documents.c.plan_id)

api_keys = Table(
    "api_keys",
    metadata,
    _key("prefix"),
    _key("name"),
    Column("digest", LargeBinary, nullable=False),
    Column("scope", Text, nullable=False),
    Column("namespaces", ARRAY(Text)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("prefix", name="pk_api_keys"),
    CheckConstraint("scope IN ('read', 'write', 'admin')", name="ck_api_keys_scope"),
    CheckConstraint("namespaces <> '{}'", name="ck_api_keys_namespaces"),
    comment="Who may call the API. prefix is the start of the key, to recognise it by; digest is "
    "the SHA-256 of the whole. namespaces limits the key to these; null is all. Servers follow "
    "changes by NOTIFY indexd_api_keys, and look every second.",
)

Index(
    "ux_api_keys_name",
    api_keys.c.name,
    unique=True,
    postgresql_where=api_keys.c.revoked_at.is_(None),
)
