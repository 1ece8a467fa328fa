"""How large a request may be beside its body: counts and sizes that are settings."""

from indexd.api.structs import FiltersIn, ForgetFilterIn, SearchIn, UpsertIn
from indexd.errors import InvalidField
from indexd.settings import Settings


def check_document(request: UpsertIn, settings: Settings) -> None:
    """Raises InvalidField for too many chunks and for a text that is too long."""
    if len(request.chunks) > settings.max_chunks:
        raise InvalidField(
            f"chunks: expected at most {settings.max_chunks}, got {len(request.chunks)}"
        )
    for place, chunk in enumerate(request.chunks):
        if len(chunk.text or "") > settings.max_text_chars:
            raise InvalidField(
                f"chunks[{place}].text: expected at most {settings.max_text_chars} characters, "
                f"got {len(chunk.text or '')}"
            )


def check_search(request: SearchIn, settings: Settings) -> None:
    """Raises InvalidField for a query that is too long and for filters of too many values."""
    text = request.query if isinstance(request.query, str) else request.query and request.query.text
    check_text(text or "", settings, "query")
    if request.filters is not None:
        check_filters(request.filters, settings, "filters")


def check_filters(filters: FiltersIn | ForgetFilterIn, settings: Settings, where: str) -> None:
    for name in ("tags", "source_path", "doc_id", "source_ref_origin"):
        values = getattr(filters, name, None)
        if isinstance(values, list) and len(values) > settings.max_filter_values:
            raise InvalidField(
                f"{where}.{name}: expected at most {settings.max_filter_values} values, "
                f"got {len(values)}"
            )


def check_text(text: str, settings: Settings, where: str) -> None:
    if len(text) > settings.max_text_chars:
        raise InvalidField(f"{where}: expected at most {settings.max_text_chars} characters")
