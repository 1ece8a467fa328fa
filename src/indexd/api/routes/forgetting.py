"""Routes that forget on request, and show what was forgotten."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from functools import partial
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
from indexd.api.parse import checked_limit
from indexd.api.parse_forget import condition_from, reason_from
from indexd.api.structs import AuditOut, ForgetIn, ForgetOut
from indexd.context import Service
from indexd.db.pool import Connection
from indexd.errors import InvalidField, PlanDrifted, PlanNotFound, PlanRequired, UnsafeForget
from indexd.store.forgetting import audit as store_audit
from indexd.store.forgetting import forget as store
from indexd.store.forgetting import plans
from indexd.store.forgetting.audit import PageEnd
from indexd.store.forgetting.forget import Condition, Forgotten
from indexd.store.forgetting.plans import Plan


@json_post(
    "/index/forget",
    scope("admin", others="403"),
    Operation(
        "Forget", "Forget", examples.FORGET, (UnsafeForget, PlanRequired, PlanNotFound, PlanDrifted)
    ),
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
    is_dry = dry_run or data.dry_run
    reason, condition = _checked(data, service, access, is_dry=is_dry)
    if is_dry and condition is not None:
        return _planned(await _plan(service, condition))
    return _done(await _carry_out(service, access, data, condition, reason))


def _checked(
    data: ForgetIn, service: Service, access: Access, *, is_dry: bool
) -> tuple[str, Condition | None]:
    """The reason and what to forget, None where a plan says it; a dry run has no plan yet."""
    if data.filter is not None:
        check_filters(data.filter, service.settings, "filter")
    reason = reason_from(data)
    condition = condition_from(data, dry_run=is_dry)
    if condition is not None:
        _allow(condition, access)
        structlog.contextvars.bind_contextvars(namespace=condition.namespace)
    return reason, condition


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

    forgotten = await service.database.write(remove)
    record_deletions(forgotten.deletions, service.metrics)
    return forgotten


async def _allow_time(connection: Connection, service: Service) -> None:
    """Raise the time limit of statements: a forget may be large, and it is atomic."""
    milliseconds = int(service.settings.forget_timeout_seconds * 1000)
    await connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")


def _done(forgotten: Forgotten) -> ForgetOut:
    return ForgetOut(
        forgotten_count=forgotten.count,
        dry_run=False,
        forgotten_docs=forgotten.documents,
        truncated=forgotten.count > len(forgotten.documents),
        event_id=forgotten.event_id,
    )


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
    # One more than the page holds tells whether there is another page.
    look = partial(
        store_audit.events,
        limit=wanted + 1,
        after=_place(cursor),
        namespaces=None if access.namespaces is None else sorted(access.namespaces),
    )
    events = await service.database.read(look)
    page = events[:wanted]
    return AuditOut(page, _cursor(page[-1]) if len(events) > wanted else None)


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
