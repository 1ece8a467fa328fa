"""Requests as clients send them, shown in the OpenAPI document and on its page."""

from typing import Any

UPSERT: dict[str, Any] = {
    "doc_id": "note-42",
    "namespace": "vault",
    "chunks": [
        {
            "id": "note-42#0",
            "text": "Backups are encrypted and kept for 90 days.",
            "meta": {
                "embedding": [0.12, 0.98],
                "source_path": "notes/example.md",
                "tags": ["project/infra"],
            },
        }
    ],
}
DOCUMENTS_GET: dict[str, Any] = {"doc_ids": ["note-42", "note-43"], "namespace": "vault"}
DOCUMENTS_LIST: dict[str, Any] = {
    "namespace": "vault",
    "filters": {"tags": ["project"]},
    "order": "created_at",
    "descending": True,
    "limit": 20,
}
DOCUMENTS_COUNT: dict[str, Any] = {"namespace": "vault", "filters": {"tags": ["project"]}}
DOCUMENTS_FACETS: dict[str, Any] = {
    "namespace": "vault",
    "fields": ["tags", "meta.lang", "ingested_at"],
    "limit": 20,
}
DOCUMENTS_UPDATE: dict[str, Any] = {
    "doc_ids": ["note-42"],
    "namespace": "vault",
    "set": {"meta": {"status": "reviewed", "draft": None}, "tags": ["project/infra"]},
}
DOCUMENTS_DELETE: dict[str, Any] = {
    "doc_ids": ["note-43", "note-44"],
    "namespace": "vault",
    "reason": "duplicate",
}
DELETE = {"doc_id": "note-42", "namespace": "vault"}
SEARCH: dict[str, Any] = {
    "query": {"text": "backup policy", "meta": {"embedding": [0.12, 0.98]}},
    "namespace": "vault",
    "k": 10,
    "filters": {"tags": ["project"]},
}
RELATED = {"doc_id": "note-42", "namespace": "vault", "k": 5}
FORGET: dict[str, Any] = {
    "filter": {"namespace": "chronik", "older_than": "2024-01-01T00:00:00Z"},
    "reason": "Manual cleanup after system migration",
    "dry_run": True,
}
RETENTION_PREVIEW: dict[str, Any] = {
    "namespace": "chronik",
    "policy": {"max_items": 10000, "purge_strategy": "oldest"},
}
FEEDBACK = {"doc_id": "note-42", "namespace": "vault", "useful": True}
EMBED = {"text": "Text to embed", "namespace": "osctx", "source_ref": "event-abc-123"}
DECAY_PREVIEW = {"namespace": "chronik", "half_life_seconds": 2592000}
DOCUMENT: dict[str, Any] = {"doc_id": "note-42", "namespace": "vault"}
IRRELEVANT: dict[str, Any] = {"namespace": "vault", "limit": 10}
AUDIT: dict[str, Any] = {"limit": 10}
