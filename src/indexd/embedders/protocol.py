"""The interface of a provider of embeddings, and the only exception that it may raise."""

from collections.abc import Sequence
from typing import Literal, Protocol

from numpy.typing import ArrayLike

from indexd.vectors import Model

Cause = Literal["unreachable", "timeout", "status", "answer", "refused"]
"""Label of the failure metric. `refused`: the model does not accept these texts."""


Kind = Literal["query", "passage"]
"""What a text is: a question that is searched with, or a part of a document that is found."""


class Failure(Exception):
    """A provider could not embed. The message never holds a text, a vector or a key.

    `again`: the same call may succeed if it is repeated at once. `lasting`: it will fail until a
    person repairs something, so one such failure opens the circuit breaker. `status`: the HTTP
    status of the answer, if there was one.
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


class Unusable(Failure):
    """The provider will not work on this machine, whatever is tried."""

    def __init__(self, message: str) -> None:
        super().__init__("unreachable", message, lasting=True)


class Provider(Protocol):
    """Turns texts into vectors. All methods raise Failure, and no other exception."""

    @property
    def name(self) -> str:
        """Name for people, with the address of the server if there is one."""

    async def model(self) -> Model:
        """The present model. A cheap call, which also shows whether the provider answers."""

    async def embed(self, texts: Sequence[str], kind: Kind) -> ArrayLike:
        """One vector per text, in the order of the texts. The caller checks shape and values.

        `kind` says what the texts are. Those of a model with prefixes begin with theirs already,
        unless the provider's model writes them itself.
        """

    async def close(self) -> None: ...
