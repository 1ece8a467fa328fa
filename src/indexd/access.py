"""What a caller may do: its scope, and the namespaces there are for it.

A key that is limited to namespaces must not learn whether others exist. So a read of another one
goes on as for a namespace that was never written to, and a write is refused with the same words
whether it exists or not. Handlers take an `Access` and say which of the two they do:

    namespace = access.reads(namespace_of(data.namespace))      then empty, or 404
    namespace = access.writes(namespace_of(data.namespace))     or 403
    rows = [row for row in rows if access.sees(row.namespace)]  in lists
"""

from typing import Literal, get_args

import msgspec

from indexd.errors import NamespaceForbidden

Scope = Literal["read", "write", "admin"]
"""Each holds the ones before it."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

Others = Literal["empty", "403", "left out", "-"]
"""What a key meets in namespaces it is not for: as if they did not exist, which is an empty answer
or 404; a refusal; lists without them; or the route is about none."""

OPEN = "open"
"""The scope of a route that anyone may call, without a key."""


class Access(msgspec.Struct, frozen=True):
    """`name` is the key's, and the actor in the audit; without `namespaces`, all are allowed."""

    name: str
    scope: Scope
    namespaces: frozenset[str] | None = None

    def reaches(self, scope: str) -> bool:
        """Whether a route of this scope may be called; one of an unknown scope needs admin."""
        needed = SCOPES.index(scope) if scope in SCOPES else len(SCOPES) - 1
        return SCOPES.index(self.scope) >= needed

    def sees(self, namespace: str) -> bool:
        return self.namespaces is None or namespace in self.namespaces

    def reads(self, namespace: str) -> str:
        """The namespace to look into: where the key does not see it, one that can't exist."""
        # Names are trimmed, so none ends in a space.
        return namespace if self.sees(namespace) else f"{namespace} "

    def writes(self, namespace: str) -> str:
        """Raises NamespaceForbidden, whether the namespace exists or not."""
        if not self.sees(namespace):
            raise NamespaceForbidden
        return namespace

    def everywhere(self) -> None:
        """Raises NamespaceForbidden unless the key may act on all namespaces at once."""
        if self.namespaces is not None:
            raise NamespaceForbidden(
                "the key is limited to namespaces, so the request must name one of them"
            )


ANYONE = Access("anonymous", "admin")
"""Every caller, where authentication is off."""
