"""A server that takes a bulk as indexd does, up to the digest, and stores nothing."""

from typing import Any

import msgspec
from litestar import Litestar, Request, get, post

from indexd.api.bulk import _lines
from indexd.api.json_body import decoded
from indexd.api.parse import document_from
from indexd.api.structs import BulkOut, UpsertIn

_decoder = msgspec.json.Decoder(UpsertIn)


@post("/index/bulk", status_code=200)
async def bulk(request: Request[Any, Any, Any]) -> BulkOut:
    out = BulkOut()
    async for _, line in _lines(request.stream(), 2**24):
        if isinstance(line, bytes):
            document_from(decoded(line, _decoder)).digest()
            out.accepted += 1
    out.unchanged = out.chunks = out.accepted
    return out


@get("/readyz")
async def ready() -> str:
    return "ok"


app = Litestar([bulk, ready], request_max_body_size=None)
