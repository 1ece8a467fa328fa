"""Database URLs in the form of libpq."""

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
    """The URL for psycopg and the programs of PostgreSQL, without the name of a driver."""
    return "postgresql://" + _rest(url)


def require_valid(url: str) -> None:
    """Raise ConfigurationError for a URL that libpq cannot parse.

    The message does not quote the wrong part, because it may be the password.
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
    """The URL without its password as an argument, and the password as environment variable.

    All users of a machine can see the arguments of a program.
    """
    parts = conninfo_to_dict(libpq_url(url))
    password = parts.pop("password", None)
    return make_conninfo("", **parts), {"PGPASSWORD": str(password)} if password else {}


def is_on_this_machine(url: str) -> bool:
    """Whether all hosts of the URL are this machine. Host names are not resolved."""
    hosts = str(conninfo_to_dict(libpq_url(url)).get("host") or "").split(",")
    return all(h == "" or h.startswith(("/", "@", "127.")) or h in _OURS for h in hosts)


_OURS = ("localhost", "::1")


def with_password(url: str, password: str) -> str:
    """The URL with this password, unless it has one."""
    parts = urlsplit(libpq_url(url))
    if parts.password is not None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    # `_replace` is public: every named tuple has it.
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))
