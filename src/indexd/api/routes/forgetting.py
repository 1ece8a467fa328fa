"""Routes that forget on request, and show what was forgotten."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import Annotated

import msgspec
import structlog
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.deletions import record_deletions
from indexd.api.limits import check_filters
from indexd.api.operations import Operation, get, json_post
from indexd.api.parameters import Limit
from indexd.api.parse import checked_limit, condition_from, reason_from
from indexd.api.structs import AuditOut, ForgetIn, ForgetOut
from indexd.context import Service
from indexd.db.pool import Connection
from indexd.errors import InvalidField, PlanDrifted, PlanNotFound, UnsafeForget
from indexd.store.forgetting import audit as store_audit
from indexd.store.forgetting import forget as store
from indexd.store.forgetting import plans
from indexd.store.forgetting.audit import PageEnd
from indexd.store.forgetting.forget import Condition, Forgotten
from indexd.store.forgetting.plans import Plan


@json_post(
    "/index/forget",
    scope("admin", others="403"),
    Operation("Forget", "Forget", examples.FORGET, (UnsafeForget, PlanNotFound, PlanDrifted)),
)
async def forget(
    request: Request[None, Access, State],
    data: JSONBody[ForgetIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    dry_run: Annotated[
        bool,
        QueryParameter(description="The same as `dry_run` in the body"),
    ] = False,
) -> ForgetOut:
    """Forget documents by filter, or as a dry run planned it; a dry run changes nothing."""
    if data.filter is not None:
        check_filters(data.filter, service.settings, "filter")
    reason = reason_from(data)
    condition = condition_from(data, dry_run=dry_run or data.dry_run)
    if condition is not None:
        _allow(condition, access)
        structlog.contextvars.bind_contextvars(namespace=condition.namespace)
    if condition is not None and (dry_run or data.dry_run):
        return _planned(await _plan(service, condition))
    forgotten = await _carry_out(service, access, data, condition, reason)
    record_deletions(forgotten.deletions, service.metrics)
    return ForgetOut(
        forgotten_count=forgotten.count,
        dry_run=False,
        forgotten_docs=forgotten.documents,
        truncated=forgotten.count > len(forgotten.documents),
        event_id=forgotten.event_id,
    )


def _allow(condition: Condition, access: Access) -> None:
    """Raises NamespaceForbidden where the filter reaches further than the key."""
    if condition.namespace is None:
        access.everywhere()
    else:
        access.writes(condition.namespace)


async def _plan(service: Service, condition: Condition) -> Plan:
    at = service.now()
    lifetime = timedelta(seconds=service.settings.forget_plan_seconds)

    async def make(connection: Connection) -> Plan:
        await _allow_time(connection, service)
        return await plans.make(connection, condition, at=at, lifetime=lifetime)

    return await service.database.write(make)


async def _carry_out(
    service: Service, access: Access, data: ForgetIn, condition: Condition | None, reason: str
) -> Forgotten:
    at = service.now()

    async def remove(connection: Connection) -> Forgotten:
        await _allow_time(connection, service)
        if condition is not None:
            return await store.forget(
                connection, condition, reason=reason, actor=access.name, at=at
            )
        assert data.plan_id is not None  # noqa: S101 (condition_from saw to it)
        return await plans.carry_out(
            connection,
            data.plan_id,
            reason=reason,
            actor=access.name,
            at=at,
            namespaces=access.namespaces,
        )

    return await service.database.write(remove)


async def _allow_time(connection: Connection, service: Service) -> None:
    """A forget may be large; it is whole or not at all."""
    milliseconds = int(service.settings.forget_timeout_seconds * 1000)
    await connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")


def _planned(plan: Plan) -> ForgetOut:
    return ForgetOut(
        forgotten_count=plan.count,
        dry_run=True,
        forgotten_docs=plan.documents,
        truncated=plan.count > len(plan.documents),
        event_id=None,
        plan_id=plan.plan_id,
        expires_at=plan.expires_at,
    )


@get(
    "/index/audit",
    scope("admin", others="left out"),
    Operation("Audit", "Forget", examples.AUDIT),
)
async def audit(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    limit: Limit = 100,
    cursor: Annotated[
        str | None, QueryParameter(description="The `next_cursor` of the page before")
    ] = None,
) -> AuditOut:
    """Everything that was forgotten, newest first, page by page."""
    wanted = checked_limit(limit)
    after = _place(cursor)
    events = await service.database.read(
        lambda connection: store_audit.events(
            connection,
            limit=wanted + 1,
            after=after,
            namespaces=None if access.namespaces is None else sorted(access.namespaces),
        )
    )
    page = events[:wanted]
    more = len(events) > wanted
    return AuditOut(page, _cursor(page[-1]) if more else None)


def _cursor(last: store_audit.Event) -> str:
    place = PageEnd(last.at, last.event_id, last.namespace)
    return urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _place(cursor: str | None) -> PageEnd | None:
    """Raises InvalidField for anything but a `next_cursor`."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor.encode()), type=PageEnd)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise InvalidField("cursor: expected the next_cursor of an earlier page") from error
