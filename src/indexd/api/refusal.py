"""An error answered outside of any route: before one is chosen, or before it is begun."""

from litestar.types import Send

from indexd.api.problems import encoded
from indexd.errors import IndexdError


async def refuse(error: IndexdError, send: Send) -> None:
    body = encoded(error)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **error.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
