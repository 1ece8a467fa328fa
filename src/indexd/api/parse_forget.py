"""From the request of a forget to what the store takes; what says too little is refused."""

from indexd.api.parse import utc
from indexd.api.structs import ForgetFilterIn, ForgetIn
from indexd.errors import InvalidField, PlanRequired, UnsafeForget
from indexd.names import namespace_of
from indexd.store.forgetting.forget import Condition
from indexd.store.where.tree import parse as parse_where


def reason_from(request: ForgetIn) -> str:
    if not request.reason.strip():
        raise InvalidField("reason: expected why this is forgotten; it is kept in the log")
    return request.reason


def condition_from(request: ForgetIn, *, dry_run: bool) -> Condition | None:
    """What to forget; None where a plan says it. Raises UnsafeForget or InvalidField."""
    if request.plan_id is not None and (request.filter is not None or dry_run):
        raise InvalidField("plan_id: a plan has its filter, and was the dry run; send it alone")
    if not (dry_run or request.confirm):
        raise UnsafeForget(
            "a forget that is no dry run needs confirm: true",
            hint="send dry_run: true first to see what it would remove, then confirm: true",
        )
    if request.plan_id is not None:
        return None
    return _condition(request.filter or ForgetFilterIn(), dry_run=dry_run)


def _check_where_alone(condition: Condition, *, dry_run: bool) -> None:
    if condition.namespace is None:
        raise UnsafeForget(
            "filter.where: alone it needs a namespace",
            hint="name the one namespace to forget in, or narrow `where` by another filter",
        )
    if not dry_run:
        raise PlanRequired(
            "filter.where: alone it needs a plan, so that what leaves was seen before",
            hint="send dry_run: true first, then the plan_id of its answer",
        )


def _condition(sent: ForgetFilterIn, *, dry_run: bool) -> Condition:
    for key in ("namespace", "source_ref_origin", "source_ref_id", "doc_id"):
        value = getattr(sent, key)
        # Unlike the others a document's id may be blank.
        if value is not None and not (value if key == "doc_id" else value.strip()):
            raise UnsafeForget(
                f"filter.{key}: expected a text that is not blank",
                hint="leave it out to match any",
            )
    if sent.tags is not None and (not sent.tags or "" in sent.tags):
        raise UnsafeForget(
            "filter.tags: expected at least one tag, none of them empty",
            hint="leave it out to match any",
        )
    condition = Condition(
        namespace=None if sent.namespace is None else namespace_of(sent.namespace),
        older_than=utc(sent.older_than, "filter.older_than"),
        source_ref_origin=sent.source_ref_origin,
        source_ref_id=sent.source_ref_id,
        doc_id=sent.doc_id,
        tags=sent.tags,
        where=sent.where,
    )
    if sent.where is not None:
        parse_where(sent.where)
    if condition.is_where_alone:
        _check_where_alone(condition, dry_run=dry_run)
    if sent.allow_namespace_wipe and condition.namespace is None:
        raise UnsafeForget(
            "allow_namespace_wipe needs a namespace",
            hint="name the one namespace that is to be emptied",
        )
    if condition.is_everything and not sent.allow_namespace_wipe:
        raise UnsafeForget(
            "the filter says nothing about the documents, and would empty whole namespaces",
            hint="add older_than, source_ref_origin, source_ref_id, doc_id, tags or where; "
            "or name a namespace and send allow_namespace_wipe: true",
        )
    return condition
