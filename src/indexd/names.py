"""The rules for names that clients send: namespaces, and ids of documents and chunks."""

from indexd.errors import InvalidField

DEFAULT_NAMESPACE = "default"

MAX_NAMESPACE = 128
"""Characters of a namespace at most."""

MAX_ID = 512
"""Characters at most of an id of a document or a chunk, as a client sends it."""


def namespace_of(name: str | None) -> str:
    """The trimmed name; `default` if it is missing, empty or blank. Raises InvalidField."""
    trimmed = (name or "").strip() or DEFAULT_NAMESPACE
    if len(trimmed) > MAX_NAMESPACE:
        raise InvalidField(
            f"namespace: expected at most {MAX_NAMESPACE} characters, got {len(trimmed)}"
        )
    return trimmed


def never_written(namespace: str) -> str:
    """A name that no namespace has: `namespace_of` takes the space at its end from every name."""
    return f"{namespace} "


def as_asked(namespace: str) -> str:
    """The namespace as the client named it, also of one that is `never_written`."""
    return namespace.removesuffix(" ")


def checked_id(value: str, where: str) -> str:
    """The unchanged id. Raises InvalidField if it is empty or too long."""
    if not 1 <= len(value) <= MAX_ID:
        raise InvalidField(f"{where}: expected 1 to {MAX_ID} characters, got {len(value)}")
    return value
