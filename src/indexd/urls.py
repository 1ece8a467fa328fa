"""Database URLs, as libpq takes them."""

from urllib.parse import quote, urlsplit, urlunsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from indexd.errors import ConfigurationError

_DRIVERS = ("postgresql+psycopg://", "postgresql://", "postgres://")


def _rest(url: str) -> str:
    for prefix in _DRIVERS:
        if url.startswith(prefix):
            return url.removeprefix(prefix)
    raise ConfigurationError(
        "the database URL must start with postgresql://, such as postgresql://user@host:5432/indexd"
    )


def libpq_url(url: str) -> str:
    """For psycopg and libpq's own programs."""
    return "postgresql://" + _rest(url)


def require_valid(url: str) -> None:
    """Raises ConfigurationError for what libpq cannot read, and does not say which part: it may be
    the password.
    """
    try:
        parts = conninfo_to_dict(libpq_url(url))
        urlsplit(libpq_url(url))
    except (ProgrammingError, ValueError) as error:
        [cause, *_] = str(error).split(":")
        raise ConfigurationError(_INVALID.format(cause=cause.strip())) from None
    ports = str(parts.get("port") or "").split(",")
    if not all(port == "" or port.isdecimal() for port in ports):
        raise ConfigurationError(_INVALID.format(cause="a port that is no number"))
    if "@" in str(parts.get("host") or ""):
        raise ConfigurationError(_INVALID.format(cause="a host with @"))


_INVALID = (
    "database_url: {cause}; in user and password, characters such as %, @, : and / are written "
    "as %25, %40, %3A and %2F"
)


def for_command_line(url: str) -> tuple[str, dict[str, str]]:
    """For libpq's programs, and what their environment needs: everyone sees their arguments."""
    parts = conninfo_to_dict(libpq_url(url))
    password = parts.pop("password", None)
    return make_conninfo("", **parts), {"PGPASSWORD": str(password)} if password else {}


def is_on_this_machine(url: str) -> bool:
    """As far as the URL tells."""
    hosts = str(conninfo_to_dict(libpq_url(url)).get("host") or "").split(",")
    return all(h == "" or h.startswith(("/", "@", "127.")) or h in _OURS for h in hosts)


_OURS = ("localhost", "::1")


def with_password(url: str, password: str) -> str:
    """The URL with this password, unless it has one."""
    parts = urlsplit(libpq_url(url))
    if parts.password is not None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))
