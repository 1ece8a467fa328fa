"""Names that clients give: of namespaces and of documents. The one place for their rules."""

from indexd.errors import InvalidField

DEFAULT_NAMESPACE = "default"

MAX_NAMESPACE = 128
"""Characters of a namespace."""

MAX_ID = 512
"""Characters of a document's id or a chunk's, as a client sends it."""


def namespace_of(name: str | None) -> str:
    """Trimmed; missing, empty or blank is `default`. Raises InvalidField."""
    trimmed = (name or "").strip() or DEFAULT_NAMESPACE
    if len(trimmed) > MAX_NAMESPACE:
        raise InvalidField(
            f"namespace: expected at most {MAX_NAMESPACE} characters, got {len(trimmed)}"
        )
    return trimmed


def checked_id(value: str, where: str) -> str:
    """The id as it was sent. Raises InvalidField for an empty or a long one."""
    if not 1 <= len(value) <= MAX_ID:
        raise InvalidField(f"{where}: expected 1 to {MAX_ID} characters, got {len(value)}")
    return value
