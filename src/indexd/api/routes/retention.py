"""What fades and what leaves, by which rule: looking only."""

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
from indexd.names import namespace_of
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

    async def look(connection: Connection) -> dict[str, CondemnedOut]:
        in_force, _ = await policies.in_force(connection)
        what_if = (
            None if data.policy is None else parse_policy(data.policy, "policy", in_force.defaults)
        )
        counts = await stats.document_counts(connection)
        spaces = [name for name in sorted(counts) if access.sees(name)]
        return {
            space: await _condemned(
                connection,
                NamespaceUnderPolicy(
                    inside, what_if or in_force.of(inside), counts.get(inside, 0), at
                ),
            )
            for space in ([named] if named is not None else spaces)
            if (inside := access.reads(space))
        }

    return RetentionPreviewOut(at, await service.database.read(look))


async def _condemned(connection: Connection, state: NamespaceUnderPolicy) -> CondemnedOut:
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
    what_if = half_life(data.half_life_seconds)
    inside = access.reads(namespace)
    limit = min(data.limit or DEFAULT_LIMIT, MAX_LIMIT)

    async def look(connection: Connection) -> DecayPreviewOut:
        seconds = what_if or (await policies.of(connection, inside)).half_life_seconds
        found = await fading.preview(
            connection, inside, half_life_seconds=seconds, at=at, limit=limit
        )
        return DecayPreviewOut(
            namespace, found.total_documents, seconds, at, found.previews, found.curve
        )

    return await service.database.read(look)
