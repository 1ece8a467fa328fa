"""What fades and what leaves, by which rule: looking only."""

from datetime import datetime
from functools import partial
from typing import Any

import structlog
from litestar.di import NamedDependency
from litestar.params import JSONBody

from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.operations import Operation, get, json_post
from indexd.api.parse import MAX_LIMIT, half_life, utc
from indexd.api.structs import (
    CondemnedOut,
    DecayPreviewIn,
    DecayPreviewOut,
    RetentionOut,
    RetentionPreviewIn,
    RetentionPreviewOut,
)
from indexd.context import Service
from indexd.db.pool import Connection
from indexd.names import as_asked, namespace_of
from indexd.policy import Policies, parse_policy
from indexd.store import policies, stats
from indexd.store.forgetting import decay_preview as fading
from indexd.store.forgetting import retention as store
from indexd.store.forgetting.retention import NamespaceUnderPolicy

DEFAULT_LIMIT = 100


@get("/index/retention", scope("read", others="left out"), Operation("Retention", "Fade"))
async def retention(
    service: NamedDependency[Service], access: NamedDependency[Access]
) -> RetentionOut:
    """The retention policies in force."""
    found, policy_hash = seen(await service.database.read(policies.in_force), access)
    return RetentionOut(found.namespaces, found.defaults, policy_hash, found.source)


def seen(in_force: tuple[Policies, str], access: Access) -> tuple[Policies, str]:
    """The policies and their hash as far as this key may know them."""
    if access.namespaces is None:
        return in_force
    found = in_force[0].seen_by(access.sees)
    return found, found.hash


@json_post(
    "/index/retention/preview",
    scope("read", others="empty"),
    Operation("RetentionPreview", "Fade", examples.RETENTION_PREVIEW),
)
async def retention_preview(
    data: JSONBody[RetentionPreviewIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> RetentionPreviewOut:
    """What retention would remove now, or at a time, or under a policy; changes nothing."""
    named = None if data.namespace is None else namespace_of(data.namespace)
    structlog.contextvars.bind_contextvars(namespace=named)
    at = utc(data.at, "at") or service.now()
    look = partial(_by_namespace, access=access, named=named, policy=data.policy, at=at)
    return RetentionPreviewOut(at, await service.database.read(look))


async def _by_namespace(
    connection: Connection,
    *,
    access: Access,
    named: str | None,
    policy: dict[str, Any] | None,
    at: datetime,
) -> dict[str, CondemnedOut]:
    """What retention would remove of the namespace `named`, else of all that the key sees."""
    in_force, _ = await policies.in_force(connection)
    what_if = None if policy is None else parse_policy(policy, "policy", in_force.defaults)
    counts = await stats.document_counts(connection)
    seen_ones = [name for name in sorted(counts) if access.sees(name)]
    states = [
        NamespaceUnderPolicy(name, what_if or in_force.of(name), counts.get(name, 0), at)
        for name in ([access.reads(named)] if named is not None else seen_ones)
    ]
    return {as_asked(state.namespace): await _condemned(connection, state) for state in states}


async def _condemned(connection: Connection, state: NamespaceUnderPolicy) -> CondemnedOut:
    """What the policy removes of one namespace, at most MAX_LIMIT documents by name."""
    verdict = await store.condemned(connection, state, listed=MAX_LIMIT)
    listed = verdict.documents
    return CondemnedOut(state.documents, verdict.count, verdict.count > len(listed), listed)


@json_post(
    "/index/decay/preview",
    scope("read", others="empty"),
    Operation("DecayPreview", "Fade", examples.DECAY_PREVIEW),
)
async def decay_preview(
    data: JSONBody[DecayPreviewIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DecayPreviewOut:
    """How far documents have faded, or would have under another half-life or at another time."""
    namespace = namespace_of(data.namespace)
    structlog.contextvars.bind_contextvars(namespace=namespace)
    at = utc(data.at, "at") or service.now()
    look = partial(
        _faded,
        namespace=access.reads(namespace),
        what_if=half_life(data.half_life_seconds),
        at=at,
        limit=min(data.limit or DEFAULT_LIMIT, MAX_LIMIT),
    )
    return await service.database.read(look)


async def _faded(
    connection: Connection, *, namespace: str, what_if: float | None, at: datetime, limit: int
) -> DecayPreviewOut:
    """How far documents have faded at `at`, under `what_if` or the half-life of the policy."""
    seconds = what_if or (await policies.of(connection, namespace)).half_life_seconds
    found = await fading.preview(
        connection, namespace, half_life_seconds=seconds, at=at, limit=limit
    )
    return DecayPreviewOut(
        as_asked(namespace), found.total_documents, seconds, at, found.previews, found.curve
    )
