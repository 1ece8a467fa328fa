"""Query parameters that several routes take."""

from typing import Annotated

from litestar.openapi.spec import Example
from litestar.params import QueryParameter

DocId = Annotated[
    str,
    QueryParameter(
        description="Id of the document",
        examples=[Example(value="note-42")],
        schema_extra={"minLength": 1, "maxLength": 512},
    ),
]
Namespace = Annotated[
    str | None,
    QueryParameter(
        description="Namespace, trimmed; missing or blank means `default`",
        examples=[Example(value="vault")],
        schema_extra={"maxLength": 128},
    ),
]
Limit = Annotated[
    int,
    QueryParameter(
        description="How many items to list; more than 1,000 means 1,000",
        schema_extra={"minimum": 1},
    ),
]
