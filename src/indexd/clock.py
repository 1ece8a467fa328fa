"""The present time, and sums of times and seconds that stay in the range of datetime."""

from datetime import UTC, datetime, timedelta

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
"""The earliest and the latest time that Python can represent."""


def now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)


def before(at: datetime, seconds: float) -> datetime:
    """The time `seconds` before `at`, but not before FIRST."""
    try:
        return at - timedelta(seconds=seconds)
    except OverflowError:
        return FIRST


def after(at: datetime, seconds: float) -> datetime | None:
    """The time `seconds` after `at`; None if it is after the year 9999."""
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError:
        return None
