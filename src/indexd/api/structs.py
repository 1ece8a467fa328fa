"""The wire: requests as clients send them, answers as they get them.

Every field says what it means by `doc`; the OpenAPI document and /schema show these words.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from indexd.policy import Policy
from indexd.store.documents import OnConflict, SourceRef
from indexd.store.facets import Facet
from indexd.store.forgetting.audit import Event
from indexd.store.forgetting.decay_preview import Point, Preview
from indexd.store.forgetting.forget import Named
from indexd.store.forgetting.relevance import Evidence
from indexd.store.forgetting.retention import Condemned
from indexd.store.indexes import Serving, State
from indexd.store.library import Order, StoredDocument
from indexd.store.search import Mode
from indexd.store.stats import NamespaceStats


def doc(description: str, *examples: Any, **schema: Any) -> Meta:
    """What the OpenAPI document says of a field.

    `schema` are keywords of JSON Schema that describe a limit. The decoder does not apply them:
    such limits are checked after it, with messages of their own.
    """
    return Meta(
        description=description,
        examples=list(examples) or None,
        extra_json_schema=schema or None,
    )


Numbers = Annotated[
    Any,
    Meta(
        extra_json_schema={
            "type": "array",
            "items": {"type": "number"},
            "minItems": 1,
            "maxItems": 16_000,
        },
    ),
]
Timestamp = Annotated[datetime, Meta(tz=True)]
Object = dict[str, Any]

DocId = Annotated[
    str,
    doc(
        "Id of the document, unique in its namespace; kept exactly as sent",
        "note-42",
        minLength=1,
        maxLength=512,
    ),
]
Namespace = Annotated[
    str | None,
    doc("Namespace, trimmed; missing, null or blank means `default`", "vault", maxLength=128),
]
Embedding = Annotated[
    Numbers | UnsetType,
    doc("Vector: 1 to 16,000 finite numbers, not all zero; stored with length 1", [0.12, 0.98]),
]
EmbeddingModel = Annotated[
    str | None,
    doc(
        "Name of the model that made the vectors; refused if the namespace has another one",
        "all-MiniLM-L6-v2",
        minLength=1,
        maxLength=512,
    ),
]
Results = Annotated[
    Annotated[int, Meta(ge=1)] | None,
    doc("How many results at most; null means 10, more than `INDEXD_MAX_K` (100) means that", 10),
]
IncludeWeights = Annotated[
    bool, doc("Whether each result carries `weights`, the two factors of its score")
]
TagList = Annotated[
    list[str] | None,
    doc(
        "Tags of which a chunk must have at least one; a tag also matches its children, "
        "`project` finds `project/infra`",
        ["project"],
        minItems=1,
        items={"type": "string", "minLength": 1},
    ),
]
At = Annotated[
    Timestamp | None,
    doc("Time to look at instead of now, RFC 3339 with an offset", "2026-01-01T00:00:00Z"),
]
AnsweredAt = Annotated[Timestamp, doc("Time that the answer is about, UTC")]
OutDocId = Annotated[str, doc("Id of the document")]
OutNamespace = Annotated[str, doc("Namespace of the document")]
Truncated = Annotated[bool, doc("Whether there are more than the answer lists")]


class SourceRefIn(msgspec.Struct, forbid_unknown_fields=True):
    """Where a document comes from."""

    origin: Annotated[
        str, doc("System that the document comes from, not blank", "docs", minLength=1)
    ]
    id: Annotated[
        str, doc("Id or path of the document in that system, not blank", "README.md", minLength=1)
    ]
    offset: Annotated[
        str | None,
        doc(
            "Place inside the source: `line:42`, `line:100-120`, `byte:1337-2048` or `offset:123`",
            "line:100-120",
            pattern=r"^((line|byte):[0-9]+(-[0-9]+)?|offset:[0-9]+)$",
        ),
    ] = None
    trust_level: Annotated[
        Literal["low", "medium", "high"] | None, doc("How far the source is trusted")
    ] = None
    injected_by: Annotated[str | None, doc("Who or what put the document in")] = None


class ChunkIn(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a document; it needs an embedding or a text."""

    id: Annotated[
        str | None,
        doc(
            "Id of the chunk, unique in its document; missing or null means `<doc_id>#<index>`",
            "note-42#0",
            minLength=1,
            maxLength=512,
        ),
    ] = None
    chunk_id: Annotated[str | None, doc("The same as `id`; send one of the two")] = None
    text: Annotated[
        str | None,
        doc(
            "Text that is searched by words and shown in results; embedded by the server where the "
            "chunk has no embedding, unless the document says `embed: false`. At most "
            "`INDEXD_MAX_TEXT_CHARS` characters, no NUL character"
        ),
    ] = None
    embedding: Embedding = UNSET
    meta: Annotated[
        Object | None,
        doc(
            "Any JSON object. The server reads `embedding` (goes before the field of that name), "
            "`source_path` (a text), `tags` (an array of texts) and `snippet` (a text) in it; "
            "arrays and objects nest at most 64 levels deep"
        ),
    ] = None


class UpsertIn(msgspec.Struct, forbid_unknown_fields=True):
    """A document as it is to be stored."""

    doc_id: DocId
    chunks: Annotated[
        list[ChunkIn],
        doc(
            "The chunks, all with vectors of one dimension; they replace those stored before. "
            "At most `INDEXD_MAX_CHUNKS`",
            minItems=1,
        ),
    ]
    namespace: Namespace = None
    meta: Annotated[Object | None, doc("Any JSON object about the document as a whole")] = None
    source_ref: Annotated[SourceRefIn | None, doc("Where the document comes from")] = None
    half_life_seconds: Annotated[
        float | None,
        doc(
            "Seconds in which the score of the document halves; null means that of the namespace",
            86400,
            exclusiveMinimum=0,
        ),
    ] = None
    ingested_at: Annotated[
        Timestamp | None,
        doc(
            "Time that the age counts from, RFC 3339 with an offset; null means the time of the "
            "write, or the stored time where nothing else changed",
            "2026-01-01T00:00:00Z",
        ),
    ] = None
    expires_at: Annotated[
        Timestamp | None,
        doc(
            "Time from which the document is hidden, RFC 3339 with an offset; the next upsert into "
            "the namespace removes it. null means never",
            "2027-01-01T00:00:00Z",
        ),
    ] = None
    ttl_seconds: Annotated[
        float | None,
        doc(
            "Seconds from the write until the document expires, instead of `expires_at`",
            86400,
            exclusiveMinimum=0,
        ),
    ] = None
    embedding_model: EmbeddingModel = None
    embed: Annotated[
        bool,
        doc(
            "Whether the server embeds texts that come without an embedding. If false, they are "
            "stored without a vector and found by words alone, until `indexd reembed` gives them "
            "one"
        ),
    ] = True
    on_conflict: Annotated[
        OnConflict,
        doc(
            "What a document that is stored already is for: `overwrite` replaces it, `skip` leaves "
            "it as it is, `fail` refuses the write (409), also if it is identical"
        ),
    ] = "overwrite"
    if_version: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        doc(
            "Write only if the stored document has this version, otherwise 409; 0: only if there "
            "is none",
            3,
        ),
    ] = None


class ForgottenOut(msgspec.Struct):
    """How many documents retention removed in the transaction of the write."""

    ttl: Annotated[
        int, doc("Documents past their own expiry, or past the age limit of the policy")
    ] = 0
    retention: Annotated[int, doc("Documents above the number that the policy allows")] = 0
    semantic: Annotated[
        int | UnsetType, doc("Documents marked irrelevant; present if there was one")
    ] = UNSET


class UpsertOut(msgspec.Struct):
    """What the write stored and what retention removed."""

    chunks: Annotated[int, doc("Chunks of the document")]
    namespace: Annotated[str, doc("Namespace that the document is in")]
    unchanged: Annotated[
        bool,
        doc("Whether the same document was already stored; its expiry alone may have changed"),
    ]
    version: Annotated[
        int, doc("Version of the document; one more at each change. Compare it for equality")
    ]
    status: Annotated[
        Literal["accepted", "skipped"],
        doc("`skipped` where `on_conflict` is that and the document was already stored"),
    ] = "accepted"
    forgotten: Annotated[ForgottenOut, doc("What retention removed in the same transaction")] = (
        msgspec.field(default_factory=ForgottenOut)
    )


class LineError(msgspec.Struct):
    """Why one line of a bulk was not stored."""

    line: Annotated[int, doc("Number of the line, from 1; blank lines count")]
    doc_id: Annotated[str | None, doc("Id of the document; null where the line has none to read")]
    code: Annotated[str, doc("Code of the error, as in `Error`", "invalid_field")]
    error: Annotated[str, doc("One sentence: what is wrong and what was expected")]


class BulkOut(msgspec.Struct):
    """What a bulk stored, and the lines that it refused."""

    accepted: Annotated[int, doc("Documents stored or already there")] = 0
    unchanged: Annotated[int, doc("Those of `accepted` that were already stored as sent")] = 0
    skipped: Annotated[
        int, doc("Documents that were already stored, of lines with `on_conflict: skip`")
    ] = 0
    chunks: Annotated[int, doc("Chunks of the accepted documents")] = 0
    failed: Annotated[int, doc("Lines that were refused")] = 0
    errors: Annotated[list[LineError], doc("The first 100 refused lines, in order")] = (
        msgspec.field(default_factory=list)
    )
    forgotten: Annotated[ForgottenOut, doc("What retention removed during the bulk")] = (
        msgspec.field(default_factory=ForgottenOut)
    )


class DeleteIn(msgspec.Struct, forbid_unknown_fields=True):
    """The document to delete."""

    doc_id: DocId
    namespace: Namespace = None
    dry_run: Annotated[bool, doc("Only tell whether it would be deleted")] = False


class DeleteOut(msgspec.Struct):
    """The document is not stored any more, whether or not it was; with `dry_run` it stays."""

    deleted: Annotated[int, doc("1 if it was stored, otherwise 0")]
    status: Annotated[Literal["accepted"], doc("Always `accepted`")] = "accepted"


Where = Annotated[
    Object | None,
    doc(
        "A tree of conditions: `and`, `or` (lists), `not`, or a leaf of `field`, `op` and `value`",
        {"field": "meta.lang", "op": "eq", "value": "de"},
    ),
]


class FiltersIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which chunks a search looks at: those that match every filter given."""

    tags: TagList = None
    source_path: Annotated[
        str | list[str] | None,
        doc("Value of `meta.source_path`, or a list of which one must match", "notes/example.md"),
    ] = None
    doc_id: Annotated[
        str | list[str] | None, doc("Id of the document, or a list of ids", "note-42")
    ] = None
    source_ref_origin: Annotated[
        str | list[str] | None,
        doc("Value of the document's `source_ref.origin`, or a list of values", "docs"),
    ] = None
    ingested_after: Annotated[
        Timestamp | None,
        doc("Earliest `ingested_at`, RFC 3339 with an offset", "2026-01-01T00:00:00Z"),
    ] = None
    ingested_before: Annotated[
        Timestamp | None,
        doc("Latest `ingested_at`, RFC 3339 with an offset", "2026-12-31T00:00:00Z"),
    ] = None
    meta: Annotated[
        Object | None,
        doc(
            "Object that `meta` must contain, the chunk's with the document's under it",
            {"lang": "de"},
        ),
    ] = None
    where: Where = None


DocIds = Annotated[
    list[str],
    doc(
        "Ids of the documents, 1 to 1,000; one that is given twice counts once",
        ["note-42"],
        minItems=1,
        maxItems=1_000,
    ),
]
Filtered = Annotated[
    FiltersIn | None,
    doc("Filters; a document matches one if any of its chunks does, and must match all"),
]
FilteredToo = Annotated[FiltersIn | None, doc("The same as `filters`; send one of the two")]


class DocumentsGetIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to read, and what of them."""

    doc_ids: DocIds
    namespace: Namespace = None
    chunks: Annotated[bool, doc("Whether each document carries its chunks")] = True
    vectors: Annotated[bool, doc("Whether each chunk carries its vector")] = False


class DocumentsOut(msgspec.Struct):
    """Documents in the order of their ids in the request; those not stored are left out."""

    documents: Annotated[list[StoredDocument], doc("The documents")]


class DocumentsListIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to list, and in which order."""

    namespace: Namespace = None
    filters: Filtered = None
    filter: FilteredToo = None
    order: Annotated[Order, doc("What the list is ordered by; ties by doc_id")] = "doc_id"
    descending: Annotated[bool, doc("Whether the last comes first")] = False
    limit: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        doc("How many documents at most; null means 100, more than 1,000 means that", 100),
    ] = None
    cursor: Annotated[
        str | None, doc("`next_cursor` of the page before; order and filters stay the same")
    ] = None
    chunks: Annotated[bool, doc("Whether each document carries its chunks")] = False


class DocumentsListOut(msgspec.Struct):
    """A page of the documents that match."""

    documents: Annotated[list[StoredDocument], doc("The documents, in the order asked for")]
    next_cursor: Annotated[str | None, doc("Where the next page begins; null: there is none")]


class DocumentsCountIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to count."""

    namespace: Namespace = None
    filters: Filtered = None
    filter: FilteredToo = None


class DocumentsDeleteIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to delete."""

    doc_ids: DocIds
    namespace: Namespace = None
    reason: Annotated[
        str | None, doc("Why, kept in the log; null means `deleted by request`", "duplicate")
    ] = None
    dry_run: Annotated[bool, doc("Only tell what would be deleted")] = False


class DocumentsDeleteOut(msgspec.Struct):
    """The documents are not stored any more; with `dry_run`, what would be."""

    deleted: Annotated[int, doc("How many were stored")]
    missing: Annotated[list[str], doc("Ids of those that were not, in the order sent")]


class SetIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to set of documents; what is missing stays as it is."""

    meta: Annotated[
        Object | UnsetType,
        doc(
            "Keys of the document's own `meta` with their new values; the others stay, and a value "
            "of null removes the key",
            {"lang": "de", "draft": None},
        ),
    ] = UNSET
    tags: Annotated[
        list[str] | UnsetType | None,
        doc(
            "Replaces the document's own tags, `meta.tags`; null removes them. Those of its chunks "
            "stay",
            ["project/infra"],
        ),
    ] = UNSET
    expires_at: Annotated[
        Timestamp | UnsetType | None,
        doc(
            "Time from which the document is answered nowhere, RFC 3339 with an offset; null: it "
            "does not expire",
            "2027-01-01T00:00:00Z",
        ),
    ] = UNSET
    ttl_seconds: Annotated[
        float | UnsetType | None,
        doc(
            "The same as seconds from now; send one of the two",
            86400,
            exclusiveMinimum=0,
        ),
    ] = UNSET
    half_life_seconds: Annotated[
        float | UnsetType | None,
        doc(
            "Seconds in which the score of the document halves; null means that of the namespace",
            86400,
            exclusiveMinimum=0,
        ),
    ] = UNSET


class DocumentsUpdateIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to change, and how: by `doc_ids` or by `filters`."""

    set: Annotated[SetIn, doc("What to set; one field at least")]
    namespace: Namespace = None
    doc_ids: Annotated[
        list[str] | None,
        doc(
            "Ids of the documents, 1 to 1,000; one that is given twice counts once",
            ["note-42"],
            minItems=1,
            maxItems=1_000,
        ),
    ] = None
    filters: Filtered = None
    filter: FilteredToo = None
    if_version: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        doc("Change the one document only if it is stored in this version, otherwise 409", 3),
    ] = None
    dry_run: Annotated[bool, doc("Only tell what would be changed")] = False


class DocumentsUpdateOut(msgspec.Struct):
    """What changed, or with `dry_run` what would: text, vectors and `ingested_at` stay."""

    updated: Annotated[int, doc("Documents whose version rose by one")]
    missing: Annotated[list[str], doc("Ids of `doc_ids` that are not stored, in the order sent")]


class DocumentsFacetsIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to look at, and which of their fields."""

    fields: Annotated[
        list[str | list[str]],
        doc(
            "1 to 10 fields: `tags`, `source_path`, `doc_id`, `source_ref.origin`, "
            "`source_ref.id`, `source_ref.trust_level`, `ingested_at`, `created_at`, "
            '`expires_at`, `version`, or `meta.<key>`, also as a list such as `["meta", "a.b"]`',
            ["tags", "meta.lang"],
            minItems=1,
            maxItems=10,
        ),
    ]
    namespace: Namespace = None
    filters: Filtered = None
    filter: FilteredToo = None
    limit: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        doc("Values of each field at most; null means 100, more than 1,000 means that", 100),
    ] = None


class DocumentsFacetsOut(msgspec.Struct):
    """The values that the documents have."""

    facets: Annotated[dict[str, Facet], doc("By the name of the field, a list joined by dots")]


class QueryIn(msgspec.Struct, forbid_unknown_fields=True):
    """A query as an object."""

    text: Annotated[str | None, doc("Text of the query", "backup policy")] = None
    meta: Annotated[
        Object | None,
        doc("Object whose `embedding`, if present, is the vector of the query"),
    ] = None


class SearchIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to search for; it needs a text or an embedding."""

    query: Annotated[
        str | QueryIn | None,
        doc("Text of the query, or an object with the text and its embedding", "backup policy"),
    ] = None
    namespace: Namespace = None
    k: Results = None
    filters: Annotated[FiltersIn | None, doc("Filters on the chunks; all must match")] = None
    filter: Annotated[FiltersIn | None, doc("The same as `filters`; send one of the two")] = None
    embedding: Annotated[
        Numbers | UnsetType,
        doc("Vector of the query; used where `query.meta.embedding` is missing", [0.12, 0.98]),
    ] = UNSET
    meta: Annotated[
        Object | None,
        doc("Older form: `meta.embedding` is used where no other embedding is present"),
    ] = None
    mode: Annotated[
        Literal["auto", "vector", "lexical", "hybrid"],
        doc(
            "`vector` ranks by cosine, `lexical` by words, `hybrid` by both. `auto` is `vector` "
            "where there is an embedding or an embedder, else `lexical`"
        ),
    ] = "auto"
    include_weights: IncludeWeights = False
    embedding_model: EmbeddingModel = None
    offset: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        doc(
            "How many of the ranked results to skip; `offset` + `k` at most 1,000. Pages fit if "
            "each is asked with the `at` of the first, and nothing is written in between",
            20,
        ),
    ] = None
    per_document: Annotated[
        bool, doc("One result per document, its best chunk; `k` and `offset` count documents")
    ] = False
    min_similarity: Annotated[
        float | None,
        doc(
            "Leaves out what is less similar: the cosine in `vector`, in `hybrid` that of what the "
            "vector finds, the share of BM25 in `lexical`",
            0.5,
        ),
    ] = None
    min_score: Annotated[
        float | None, doc("Leaves out results with a lower score; not in `hybrid`", 0.2)
    ] = None
    at: Annotated[
        Timestamp | None,
        doc(
            "Time at which the scores are computed, RFC 3339 with an offset; documents ingested "
            "after it are left out if it lies in the past. Such a search is `quiet`",
            "2026-01-01T00:00:00Z",
        ),
    ] = None
    include_vectors: Annotated[bool, doc("Whether each result carries its `embedding`")] = False
    quiet: Annotated[
        bool, doc("Whether the search does not count towards the relevance of what it finds")
    ] = False


class RelatedIn(msgspec.Struct, forbid_unknown_fields=True):
    """The document whose neighbours are searched."""

    doc_id: DocId
    namespace: Namespace = None
    k: Results = None
    include_weights: IncludeWeights = False


class Weights(msgspec.Struct):
    """The two factors of a score."""

    similarity: Annotated[
        float, doc("Cosine in mode vector, share of BM25 in lexical, fused rank in hybrid")
    ]
    decay: Annotated[float, doc("0.5 ^ (age / half-life), from 0 to 1; 1 where nothing decays")]


class ResultOut(msgspec.Struct):
    """One chunk that was found."""

    doc_id: OutDocId
    chunk_id: Annotated[str, doc("Id of the chunk")]
    namespace: OutNamespace
    score: Annotated[float, doc("What the results are ordered by, highest first")]
    snippet: Annotated[
        str,
        doc(
            "`meta.snippet`, else the part of the text where the words of the query stand, else "
            "its start, at most 240 characters"
        ),
    ]
    highlights: Annotated[
        list[list[int]],
        doc(
            "Places of the words of the query in the snippet: offsets of the first character and "
            "of the one after the last; empty where words found nothing"
        ),
    ]
    rationale: Annotated[list[str], doc("Why the chunk was found, in words for people")]
    text: Annotated[str, doc("Text of the chunk; empty where it has none")]
    meta: Annotated[Object, doc("The chunk's meta without the embedding")]
    document_meta: Annotated[Object, doc("The document's meta")]
    version: Annotated[
        int, doc("Version of the document; one more at each change. Compare it for equality")
    ]
    source_ref: Annotated[SourceRef | None, doc("Where the document comes from, if known")]
    ingested_at: Annotated[Timestamp, doc("Time that the age counts from, UTC")]
    weights: Annotated[
        Weights | UnsetType, doc("The factors of the score; present with `include_weights`")
    ] = UNSET
    embedding: Annotated[
        list[float] | UnsetType | None,
        doc("Vector of the chunk, of length 1, null if it has none; with `include_vectors`"),
    ] = UNSET


class SearchOut(msgspec.Struct):
    """The results, highest score first; ties by doc_id, then chunk_id."""

    results: Annotated[list[ResultOut], doc("At most `k` results")]
    mode: Annotated[Mode, doc("How the search was done")]
    at: Annotated[Timestamp, doc("Time at which the scores were computed, UTC")]
    latency_ms: Annotated[float, doc("Milliseconds the search took, without the embedder's")]
    budget_ms: Annotated[float, doc("Milliseconds that `INDEXD_BUDGET_MS` allows a search")]
    degraded: Annotated[
        list[str], doc("What was searched less thoroughly to keep the budget; empty: nothing")
    ] = msgspec.field(default_factory=list)
    embedding_ms: Annotated[
        float | UnsetType,
        doc("Milliseconds the embedder took for the query; present if it was asked"),
    ] = UNSET


class EmbedIn(msgspec.Struct, forbid_unknown_fields=True):
    """A text to make a vector of."""

    text: Annotated[
        str,
        doc(
            "Text to embed, not blank; at most `INDEXD_MAX_TEXT_CHARS` characters",
            "Text to embed",
            minLength=1,
        ),
    ]
    namespace: Annotated[
        str,
        doc("What the text is about", enum=["chronik", "osctx", "docs", "code", "insights"]),
    ]
    source_ref: Annotated[
        str, doc("Where the text is from, not blank", "event-abc-123", minLength=1)
    ]


class EmbedOut(msgspec.Struct):
    """A vector and what made it, as os.context.text.embed.schema.json says."""

    embedding_id: Annotated[str, doc("Id of this answer: `embed-` and a UUID")]
    text: Annotated[str, doc("The text as sent")]
    embedding: Annotated[list[float], doc("The vector, of length 1")]
    embedding_model: Annotated[str, doc("Name of the model that made the vector")]
    embedding_dim: Annotated[int, doc("How many numbers the vector has")]
    model_revision: Annotated[str, doc("Version or digest of the model, `-`, and the dimension")]
    generated_at: Annotated[Timestamp, doc("Time the vector was made, UTC")]
    namespace: Annotated[str, doc("The namespace as sent")]
    source_ref: Annotated[str, doc("The source_ref as sent")]
    embedded_as: Annotated[
        Literal["query", "passage"],
        doc("What the model was told that the text is, by the prefix before it"),
    ]
    producer: Annotated[Literal["semantAH"], doc("Always `semantAH`")] = "semantAH"
    determinism_tolerance: Annotated[
        float, doc("How far a number of the vector may differ when the text is embedded again")
    ] = 1e-6


class NamespaceOut(msgspec.Struct):
    """One namespace in numbers."""

    documents: Annotated[int, doc("Documents stored, those that expired among them")]
    chunks: Annotated[int, doc("Chunks stored")]
    expired: Annotated[
        int, doc("Documents that expired: hidden, and removed by the namespace's next upsert")
    ]
    dimension: Annotated[int | None, doc("Dimension of the vectors; null in an empty namespace")]
    index: Annotated[
        State,
        doc("How vectors are searched: `exact` scan, `hnsw` index, or `building` that index"),
    ]
    index_progress: Annotated[
        float | None, doc("Share of the index that is built, 0 to 1; null if none is being built")
    ]
    index_note: Annotated[str | None, doc("Why there is no index where one might be expected")]
    words_counted_at: Annotated[
        Timestamp | None,
        doc(
            "When the words were counted last that searches weigh by; null of a small namespace, "
            "where each search counts them"
        ),
    ]
    oldest: Annotated[Timestamp | None, doc("Earliest `ingested_at`, UTC; null if empty")]
    newest: Annotated[Timestamp | None, doc("Latest `ingested_at`, UTC; null if empty")]
    bytes: Annotated[int, doc("Bytes of the chunks, estimated from a sample, without indexes")]

    @classmethod
    def of(cls, row: NamespaceStats, index: Serving) -> Self:
        return cls(
            documents=row.documents,
            chunks=row.chunks,
            expired=row.expired,
            dimension=row.dimension,
            index=index.state,
            index_progress=index.progress,
            index_note=index.note,
            words_counted_at=row.words_counted_at,
            oldest=row.oldest,
            newest=row.newest,
            bytes=row.bytes,
        )


class VersionOut(msgspec.Struct):
    """The versions of what runs."""

    indexd: Annotated[str, doc("Version of this service")]
    postgres: Annotated[str, doc("Version of PostgreSQL")]
    pgvector: Annotated[str | None, doc("Version of the extension pgvector; null if missing")]
    schema: Annotated[str | None, doc("Newest migration that the database has; null if none")]


class StatsOut(msgspec.Struct):
    """What the memory holds, as far as the key may see it."""

    total_documents: Annotated[int, doc("Documents in all namespaces")]
    total_chunks: Annotated[int, doc("Chunks in all namespaces")]
    namespaces: Annotated[dict[str, int], doc("Documents by namespace", {"vault": 12})]
    budget_ms: Annotated[float, doc("Milliseconds that `INDEXD_BUDGET_MS` allows a search")]
    policy_hash: Annotated[str, doc("Hash of the retention policies in force")]
    details: Annotated[dict[str, NamespaceOut], doc("More of each namespace, by its name")]
    version: Annotated[VersionOut, doc("The versions of what runs")]


class RetentionOut(msgspec.Struct):
    """The retention policies in force, as far as the key may see them."""

    configs: Annotated[dict[str, Policy], doc("Policies of the namespaces that have their own")]
    defaults: Annotated[Policy, doc("Policy of all other namespaces")]
    policy_hash: Annotated[str, doc("Hash of what the policies mean; equal policies, equal hash")]
    source: Annotated[
        str, doc("File that the policies came from; empty for a key limited to namespaces")
    ]


class DecayPreviewIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to show, and under which half-life."""

    namespace: Namespace = None
    at: At = None
    half_life_seconds: Annotated[
        float | None,
        doc(
            "Half-life to try instead of the namespace's, in seconds; null means that one",
            2592000,
            exclusiveMinimum=0,
        ),
    ] = None
    limit: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        doc("How many documents to list; null means 100, more than 1,000 means 1,000", 100),
    ] = None


class DecayPreviewOut(msgspec.Struct):
    """How far the documents of a namespace have faded."""

    namespace: Annotated[str, doc("The namespace that was looked at")]
    total_documents: Annotated[int, doc("Documents in the namespace")]
    half_life_seconds: Annotated[
        float | None, doc("Half-life that was applied; null: documents without their own stay")
    ]
    at: AnsweredAt
    previews: Annotated[list[Preview], doc("The documents, lowest decay factor first")]
    curve: Annotated[list[Point], doc("Points of decay over age, with the documents up to each")]


class RetentionPreviewIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to preview; everything may be left out."""

    namespace: Annotated[
        str | None, doc("Namespace to look at; null means all of them", "chronik", maxLength=128)
    ] = None
    at: At = None
    policy: Annotated[
        Object | None,
        doc(
            "Policy to try, with the keys of `Policy`; keys left out have their defaults. "
            "null means the policies in force",
            {"max_items": 10000, "purge_strategy": "oldest"},
        ),
    ] = None


class CondemnedOut(msgspec.Struct):
    """What retention would remove from one namespace."""

    documents: Annotated[int, doc("Documents in the namespace")]
    count: Annotated[int, doc("Documents that would be removed")]
    truncated: Truncated
    would_forget: Annotated[
        list[Condemned], doc("The first 1,000 of them, in the order of their removal")
    ]


class RetentionPreviewOut(msgspec.Struct):
    """What retention would remove; nothing was changed."""

    at: AnsweredAt
    namespaces: Annotated[dict[str, CondemnedOut], doc("What would leave, by namespace")]


class ForgetFilterIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which documents to forget: those that match everything given.

    It needs one of older_than, source_ref_origin, source_ref_id, doc_id and tags, or `where` with a
    namespace and a plan, or allow_namespace_wipe.
    """

    namespace: Annotated[
        str | None,
        doc(
            "Namespace to forget in, not blank; null means all namespaces",
            "chronik",
            minLength=1,
            maxLength=128,
        ),
    ] = None
    older_than: Annotated[
        Timestamp | None,
        doc("Documents ingested before this, RFC 3339 with an offset", "2024-01-01T00:00:00Z"),
    ] = None
    source_ref_origin: Annotated[
        str | None, doc("Value of `source_ref.origin`, not blank", "osctx", minLength=1)
    ] = None
    source_ref_id: Annotated[
        str | None, doc("Value of `source_ref.id`, not blank", "README.md", minLength=1)
    ] = None
    doc_id: Annotated[str | None, doc("Id of the document", "note-42", minLength=1)] = None
    tags: TagList = None
    where: Where = None
    allow_namespace_wipe: Annotated[
        bool, doc("Allows to empty the namespace named, where nothing else is given")
    ] = False


class ForgetIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to forget and why: a filter, or the plan of a dry run."""

    reason: Annotated[
        str,
        doc(
            "Why this is forgotten, not blank; kept in the log",
            "Manual cleanup after system migration",
            minLength=1,
        ),
    ]
    filter: Annotated[ForgetFilterIn | None, doc("Which documents to forget")] = None
    confirm: Annotated[bool, doc("Must be true unless it is a dry run")] = False
    dry_run: Annotated[
        bool, doc("Whether to change nothing and answer what would be forgotten")
    ] = False
    plan_id: Annotated[
        UUID | None,
        doc("Plan of a dry run: forgets exactly its documents. Send it without a filter"),
    ] = None


class ForgetOut(msgspec.Struct):
    """What was forgotten, or in a dry run what would be."""

    forgotten_count: Annotated[int, doc("Documents forgotten")]
    dry_run: Annotated[bool, doc("Whether it was a dry run, which changed nothing")]
    forgotten_docs: Annotated[list[Named], doc("The first 1,000 of them")]
    truncated: Truncated
    event_id: Annotated[
        UUID | None,
        doc("Id of the event in the audit; null in a dry run and where nothing was forgotten"),
    ]
    plan_id: Annotated[
        UUID | UnsetType, doc("Plan to carry out with a second request; present in a dry run")
    ] = UNSET
    expires_at: Annotated[
        Timestamp | UnsetType, doc("Time until which the plan can be carried out, UTC")
    ] = UNSET


class AuditOut(msgspec.Struct):
    """A page of the log of all that was forgotten."""

    events: Annotated[list[Event], doc("The events, newest first")]
    next_cursor: Annotated[
        str | None, doc("Send it as `cursor` for the next page; null on the last page")
    ]


class FeedbackIn(msgspec.Struct, forbid_unknown_fields=True):
    """A verdict on a document."""

    doc_id: DocId
    useful: Annotated[
        bool, doc("true unmarks the document and keeps it unmarked; false marks it irrelevant")
    ]
    namespace: Namespace = None


class FeedbackOut(msgspec.Struct):
    """The verdict is stored."""

    status: Annotated[Literal["accepted"], doc("Always `accepted`")] = "accepted"


class IrrelevantOut(msgspec.Struct):
    """The documents of a namespace that are marked irrelevant."""

    namespace: Annotated[str, doc("The namespace that was looked at")]
    count: Annotated[int, doc("Documents marked irrelevant")]
    truncated: Truncated
    documents: Annotated[list[Evidence], doc("The documents, the longest marked first")]


class Error(msgspec.Struct, omit_defaults=True):
    """Why a request was refused or failed; the body of every answer of status 400 and above."""

    error: Annotated[
        str,
        doc(
            "One sentence: what is wrong and what was expected",
            "chunk 'c2' embedding dimensionality mismatch: expected 2, got 3",
        ),
    ]
    code: Annotated[
        str,
        doc("What went wrong, for programs; a code never changes its meaning", "invalid_field"),
    ]
    hint: Annotated[str | None, doc("What to try instead; present where there is advice")] = None
    details: Annotated[
        Object | None, doc("More about the error for programs; present where there is more")
    ] = None
