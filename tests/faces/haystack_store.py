"""A document store of Haystack over the HTTP API: each document is one of one chunk."""

import asyncio
import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx
from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError

COMPARISONS = {
    "==": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "in": "in",
    "not in": "nin",
}
_SOME = {"field": "doc_id", "op": "eq", "value": "-"}
NOTHING = {"and": [_SOME, {"not": _SOME}]}
LENGTH = "haystack.length"
"""The key under which a chunk keeps the length of the vector that was sent."""

PAGE = 1_000
"""Documents of a page of a list, and of a request that names ids."""


class IndexdDocumentStore:
    """One namespace of a server. Vectors are answered in float32, with their length."""

    def __init__(self, url: str, namespace: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        self._namespace = namespace

    def close(self) -> None:
        self._client.close()

    def write_documents(
        self, documents: Any, policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise ValueError("expected a list of Documents")
        conflict = {DuplicatePolicy.SKIP: "skip", DuplicatePolicy.OVERWRITE: "overwrite"}
        written = 0
        for one in documents:
            body = _sent(one) | {"on_conflict": conflict.get(policy, "fail")}
            answer = self._post("upsert", body)
            if answer.status_code == 409:
                raise DuplicateDocumentError(answer.json()["error"])
            answer.raise_for_status()
            written += answer.json()["status"] == "accepted"
        return written

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        ids = self._list(filters)
        found: list[Document] = []
        for start in range(0, len(ids), PAGE):
            body = {"doc_ids": ids[start : start + PAGE], "vectors": True}
            told = self._post("documents/get", body).raise_for_status().json()
            found += map(_received, told["documents"])
        return found

    def count_documents(self) -> int:
        return self.count_documents_by_filter(None)

    def count_documents_by_filter(self, filters: dict[str, Any] | None) -> int:
        told = self._post("documents/count", {"filters": _filters(filters)}).raise_for_status()
        count: int = told.json()["documents"]
        return count

    def delete_documents(self, document_ids: Sequence[str]) -> int:
        deleted = 0
        for start in range(0, len(document_ids), PAGE):
            body = {"doc_ids": list(document_ids[start : start + PAGE])}
            told = self._post("documents/delete", body).raise_for_status()
            deleted += told.json()["deleted"]
        return deleted

    def delete_all_documents(self) -> None:
        self.delete_by_filter(None)

    def delete_by_filter(self, filters: dict[str, Any] | None) -> int:
        return self.delete_documents(self._list(filters))

    def update_by_filter(self, filters: dict[str, Any] | None, meta: dict[str, Any]) -> int:
        body = {"filters": _filters(filters), "set": {"meta": meta}}
        told = self._post("documents/update", body).raise_for_status()
        updated: int = told.json()["updated"]
        return updated

    def count_unique_metadata_by_filter(
        self, filters: dict[str, Any] | None, metadata_fields: list[str]
    ) -> dict[str, int]:
        names = {field: f"meta.{field.removeprefix('meta.')}" for field in metadata_fields}
        body = {"fields": list(names.values()), "filters": _filters(filters), "limit": PAGE}
        facets = self._post("documents/facets", body).raise_for_status().json()["facets"]
        return {field: len(facets[name]["values"]) for field, name in names.items()}

    def _list(self, filters: dict[str, Any] | None) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            body = {"filters": _filters(filters), "limit": PAGE, "cursor": cursor}
            told = self._post("documents/list", body).raise_for_status().json()
            found += (one["doc_id"] for one in told["documents"])
            cursor = told["next_cursor"]
            if cursor is None:
                return found

    def _post(self, route: str, body: dict[str, Any]) -> httpx.Response:
        return self._client.post(f"/index/{route}", json=body | {"namespace": self._namespace})

    def __getattr__(self, name: str) -> Any:
        """Each method also as `..._async`."""
        if not name.endswith("_async"):
            raise AttributeError(name)
        return functools.partial(asyncio.to_thread, getattr(self, name.removesuffix("_async")))


def _sent(one: Document) -> dict[str, Any]:
    length = sum(number * number for number in one.embedding or []) ** 0.5
    chunk: dict[str, Any] = {"text": one.content or "", "meta": {LENGTH: length}}
    if one.embedding is not None:
        chunk["embedding"] = one.embedding
    return {"doc_id": one.id, "meta": one.meta, "chunks": [chunk], "embed": False}


def _received(told: dict[str, Any]) -> Document:
    [chunk] = told["chunks"]
    vector, length = chunk["embedding"], chunk["meta"][LENGTH]
    embedding = None if vector is None else [number * length for number in vector]
    return Document(told["doc_id"], chunk["text"], meta=told["meta"], embedding=embedding)


def _filters(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    return {"where": _where(filters)} if filters else None


def _where(filters: dict[str, Any]) -> dict[str, Any]:
    """Raises FilterError for what Haystack does not allow."""
    if "field" not in filters:
        return _group(filters)
    if not {"operator", "value"} <= filters.keys():
        raise FilterError("a comparison needs `operator` and `value`")
    field, operator, value = filters["field"], filters["operator"], filters["value"]
    if operator not in COMPARISONS:
        raise FilterError(f"unknown operator {operator}")
    leaf = {"field": field, "op": COMPARISONS[operator], "value": value}
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"{operator} needs a list")
    elif operator not in ("==", "!="):
        _check_order(value)
        # Nothing is before or after nothing.
        return leaf if value is not None else NOTHING
    elif value is None:
        return {"field": field, "op": "missing" if operator == "==" else "exists"}
    return leaf


def _group(filters: dict[str, Any]) -> dict[str, Any]:
    if not {"operator", "conditions"} <= filters.keys():
        raise FilterError("a group needs `operator` and `conditions`")
    parts = [_where(one) for one in filters["conditions"]]
    if filters["operator"] == "NOT":
        return {"not": {"and": parts}}
    if filters["operator"] not in ("AND", "OR"):
        raise FilterError(f"unknown operator {filters['operator']}")
    return {filters["operator"].lower(): parts}


def _check_order(value: Any) -> None:
    if isinstance(value, list):
        raise FilterError("a list has no order")
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError as error:
            raise FilterError("a text has an order only as an ISO date") from error
