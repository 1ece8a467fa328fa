"""The rights of a caller: the scope of its key, and the namespaces the key is limited to.

A key that is limited to namespaces must not find out whether other namespaces exist. So a read of
another namespace is answered as if it had never been written to. A write is refused with the same
message whether the namespace exists or not. A handler takes an `Access` and calls one of these:

    namespace = access.reads(namespace_of(data.namespace))      then empty, or 404
    namespace = access.writes(namespace_of(data.namespace))     or 403
    rows = [row for row in rows if access.sees(row.namespace)]  in lists
"""

from typing import Literal, get_args

import msgspec

from indexd.errors import NamespaceForbidden
from indexd.names import never_written

Scope = Literal["read", "write", "admin"]
"""Each scope includes the scopes before it."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

Others = Literal["empty", "403", "left out", "-"]
"""How a route treats namespaces that the key is not for. `empty`: as if they did not exist (an
empty answer or 404). `403`: it refuses. `left out`: lists omit them. `-`: it concerns none."""

OPEN = "open"
"""The scope of a route that anyone may call, without a key."""


class Access(msgspec.Struct, frozen=True):
    """`name` is that of the key, and the actor in the audit. `namespaces` None: all are allowed."""

    name: str
    scope: Scope
    namespaces: frozenset[str] | None = None

    def reaches(self, scope: str) -> bool:
        """Whether a route of this scope may be called. An unknown scope counts as admin."""
        needed = SCOPES.index(scope) if scope in SCOPES else len(SCOPES) - 1
        return SCOPES.index(self.scope) >= needed

    def sees(self, namespace: str) -> bool:
        return self.namespaces is None or namespace in self.namespaces

    def reads(self, namespace: str) -> str:
        """The namespace to read; if the key does not see it, one that is never written to.

        `as_asked` of it is the name that the client sent, for the answer.
        """
        return namespace if self.sees(namespace) else never_written(namespace)

    def writes(self, namespace: str) -> str:
        """The namespace to write to. Raises NamespaceForbidden, whether it exists or not."""
        if not self.sees(namespace):
            raise NamespaceForbidden
        return namespace

    def everywhere(self) -> None:
        """Raise NamespaceForbidden unless the key may act on all namespaces at once."""
        if self.namespaces is not None:
            raise NamespaceForbidden(
                "the key is limited to namespaces, so the request must name one of them"
            )


ANYONE = Access("anonymous", "admin")
"""The rights of every caller while authentication is off."""
