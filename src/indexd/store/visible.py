"""Which documents are answered: those whose expiry has not passed."""


def live(relation: str = "documents", *, at: str = "at") -> str:
    """SQL: a row of this relation has not expired at the time that is bound as `at`."""
    return f"({relation}.expires_at IS NULL OR {relation}.expires_at > %({at})s::timestamptz)"
