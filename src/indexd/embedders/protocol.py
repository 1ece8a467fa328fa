"""What a provider of embeddings must do, and the one way in which it may fail."""

from collections.abc import Sequence
from typing import Literal, Protocol

from numpy.typing import ArrayLike

from indexd.vectors import Model

Cause = Literal["unreachable", "timeout", "status", "answer", "refused"]
"""Label of the failure metric. `refused`: these texts will not do, others may."""


class Failure(Exception):
    """A provider could not embed. The message never holds a text, a vector or a key.

    `again` says whether the same call may succeed in a moment; `lasting`, that it will not
    before someone mends something, so that no further attempt needs to be counted. `status` is
    that of the answer, if there was one over HTTP.
    """

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        again: bool = False,
        lasting: bool = False,
        status: int | None = None,
    ) -> None:
        self.cause = cause
        self.status = status
        self.again = again
        self.lasting = lasting
        super().__init__(message)


class Provider(Protocol):
    """Something that turns texts into vectors. All methods raise Failure and nothing else."""

    @property
    def name(self) -> str:
        """For people, with the address if it has one."""

    async def model(self) -> Model:
        """Which model serves now; costs little and shows whether the provider is there."""

    async def embed(self, texts: Sequence[str]) -> ArrayLike:
        """One vector per text, in their order; shape and values are for the caller to check."""

    async def close(self) -> None: ...
