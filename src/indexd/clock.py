"""Times a span away from another, where either may be of any length."""

from datetime import UTC, datetime, timedelta

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


def before(at: datetime, seconds: float) -> datetime:
    """So many seconds earlier, and no earlier than a time can be."""
    try:
        return at - timedelta(seconds=seconds)
    except OverflowError:
        return FIRST


def after(at: datetime, seconds: float) -> datetime | None:
    """So many seconds later; None past the year 9999."""
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError:
        return None
