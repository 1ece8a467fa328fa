"""The wire: requests as clients send them, answers as they get them.

/schema/openapi.json describes them all; README.md shows an example of each kind.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from indexd.policy import Policy
from indexd.store.audit import Event
from indexd.store.decay import Point, Preview
from indexd.store.documents import SourceRef
from indexd.store.forget import Named
from indexd.store.indexes import Serving, State
from indexd.store.relevance import Evidence
from indexd.store.retention import Condemned
from indexd.store.search import Mode
from indexd.store.stats import NamespaceStats

Numbers = Annotated[
    Any,
    Meta(
        description="Array of 1 to 16,000 finite numbers, not all zero",
        extra_json_schema={"type": "array", "items": {"type": "number"}, "minItems": 1},
    ),
]
Timestamp = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset")]
Object = dict[str, Any]


class SourceRefIn(msgspec.Struct, forbid_unknown_fields=True):
    origin: str
    id: str
    offset: str | None = None
    trust_level: Literal["low", "medium", "high"] | None = None
    injected_by: str | None = None


class ChunkIn(msgspec.Struct):
    id: str | None = None
    chunk_id: str | None = None
    text: str | None = None
    embedding: Numbers | UnsetType = UNSET
    meta: Object | None = None


class UpsertIn(msgspec.Struct):
    doc_id: str
    chunks: list[ChunkIn]
    namespace: str | None = None
    meta: Object | None = None
    source_ref: SourceRefIn | None = None
    half_life_seconds: float | None = None
    ingested_at: Timestamp | None = None
    embedding_model: str | None = None


class ForgottenOut(msgspec.Struct):
    """What retention took in the same transaction; `semantic` is there if it took any such."""

    ttl: int = 0
    retention: int = 0
    semantic: int | UnsetType = UNSET


class UpsertOut(msgspec.Struct):
    chunks: int
    namespace: str
    unchanged: bool
    status: Literal["accepted"] = "accepted"
    forgotten: ForgottenOut = msgspec.field(default_factory=ForgottenOut)


class LineError(msgspec.Struct):
    line: int
    doc_id: str | None
    code: str
    error: str


class BulkOut(msgspec.Struct):
    accepted: int = 0
    unchanged: int = 0
    chunks: int = 0
    failed: int = 0
    errors: list[LineError] = msgspec.field(default_factory=list)
    forgotten: ForgottenOut = msgspec.field(default_factory=ForgottenOut)


class DeleteIn(msgspec.Struct):
    doc_id: str
    namespace: str | None = None


class DeleteOut(msgspec.Struct):
    status: Literal["accepted"] = "accepted"


class FiltersIn(msgspec.Struct, forbid_unknown_fields=True):
    tags: list[str] | None = None
    source_path: str | list[str] | None = None
    doc_id: str | list[str] | None = None
    source_ref_origin: str | list[str] | None = None
    ingested_after: Timestamp | None = None
    ingested_before: Timestamp | None = None
    meta: Object | None = None


class QueryIn(msgspec.Struct):
    text: str | None = None
    meta: Object | None = None


class SearchIn(msgspec.Struct):
    query: str | QueryIn | None = None
    namespace: str | None = None
    k: Annotated[int, Meta(ge=1)] | None = None
    filters: FiltersIn | None = None
    embedding: Numbers | UnsetType = UNSET
    meta: Object | None = None
    mode: Literal["auto", "vector", "lexical", "hybrid"] = "auto"
    include_weights: bool = False
    embedding_model: str | None = None


class RelatedIn(msgspec.Struct):
    doc_id: str
    namespace: str | None = None
    k: Annotated[int, Meta(ge=1)] | None = None
    include_weights: bool = False


class Weights(msgspec.Struct):
    similarity: float
    decay: float


class ResultOut(msgspec.Struct):
    doc_id: str
    chunk_id: str
    namespace: str
    score: float
    snippet: str
    rationale: list[str]
    text: str
    meta: Object
    source_ref: SourceRef | None
    ingested_at: datetime
    weights: Weights | UnsetType = UNSET


class SearchOut(msgspec.Struct):
    results: list[ResultOut]
    mode: Mode
    latency_ms: float
    budget_ms: float
    degraded: list[str] = msgspec.field(default_factory=list)
    embedding_ms: float | UnsetType = UNSET


class EmbedIn(msgspec.Struct):
    text: str
    namespace: str
    source_ref: str


class EmbedOut(msgspec.Struct):
    """As os.context.text.embed.schema.json says."""

    embedding_id: str
    text: str
    embedding: list[float]
    embedding_model: str
    embedding_dim: int
    model_revision: str
    generated_at: datetime
    namespace: str
    source_ref: str
    producer: Literal["semantAH"] = "semantAH"
    determinism_tolerance: float = 1e-6


class NamespaceOut(msgspec.Struct):
    documents: int
    chunks: int
    dimension: int | None
    index: State
    index_progress: float | None
    index_note: str | None
    oldest: datetime | None
    newest: datetime | None
    bytes: int

    @classmethod
    def of(cls, row: NamespaceStats, index: Serving) -> Self:
        return cls(
            documents=row.documents,
            chunks=row.chunks,
            dimension=row.dimension,
            index=index.state,
            index_progress=index.progress,
            index_note=index.note,
            oldest=row.oldest,
            newest=row.newest,
            bytes=row.bytes,
        )


class VersionOut(msgspec.Struct):
    indexd: str
    postgres: str
    pgvector: str | None
    schema: str | None


class StatsOut(msgspec.Struct):
    total_documents: int
    total_chunks: int
    namespaces: dict[str, int]
    budget_ms: float
    policy_hash: str
    details: dict[str, NamespaceOut]
    version: VersionOut


class RetentionOut(msgspec.Struct):
    configs: dict[str, Policy]
    defaults: Policy
    policy_hash: str
    source: str


class DecayPreviewIn(msgspec.Struct):
    namespace: str | None = None
    at: Timestamp | None = None
    half_life_seconds: float | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None


class DecayPreviewOut(msgspec.Struct):
    namespace: str
    total_documents: int
    half_life_seconds: float | None
    at: datetime
    previews: list[Preview]
    curve: list[Point]


class RetentionPreviewIn(msgspec.Struct):
    namespace: str | None = None
    at: Timestamp | None = None
    policy: Object | None = None


class CondemnedOut(msgspec.Struct):
    documents: int
    count: int
    truncated: bool
    would_forget: list[Condemned]


class RetentionPreviewOut(msgspec.Struct):
    at: datetime
    namespaces: dict[str, CondemnedOut]


class ForgetFilterIn(msgspec.Struct, forbid_unknown_fields=True):
    namespace: str | None = None
    older_than: Timestamp | None = None
    source_ref_origin: str | None = None
    source_ref_id: str | None = None
    doc_id: str | None = None
    tags: list[str] | None = None
    allow_namespace_wipe: bool = False


class ForgetIn(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    filter: ForgetFilterIn | None = None
    confirm: bool = False
    dry_run: bool = False
    plan_id: UUID | None = None


class ForgetOut(msgspec.Struct):
    forgotten_count: int
    dry_run: bool
    forgotten_docs: list[Named]
    truncated: bool
    event_id: UUID | None
    plan_id: UUID | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET


class AuditOut(msgspec.Struct):
    events: list[Event]
    next_cursor: str | None


class FeedbackIn(msgspec.Struct):
    doc_id: str
    useful: bool
    namespace: str | None = None


class FeedbackOut(msgspec.Struct):
    status: Literal["accepted"] = "accepted"


class IrrelevantOut(msgspec.Struct):
    namespace: str
    count: int
    truncated: bool
    documents: list[Evidence]


class ErrorOut(msgspec.Struct, omit_defaults=True):
    error: str
    code: str
    hint: str | None = None
    details: Object | None = None
