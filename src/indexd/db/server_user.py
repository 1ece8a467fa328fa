"""The operating system user of the embedded PostgreSQL, and the folders that it may enter.

PostgreSQL refuses to run as root, so root runs it as a user of its own. The permissions of existing
folders are never changed: if that user cannot enter a folder it needs, the start is refused.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from indexd.errors import ConfigurationError
from indexd.settings import ROOTS_FOLDER

ROOTS_USER = "pgserver"
"""The user that PostgreSQL runs as if root starts it."""

SYSTEM_PATH = "/usr/sbin:/sbin"
"""The folders of useradd on most systems; the PATH of root does not always name them (cron)."""


class ServerUser(msgspec.Struct, frozen=True):
    """An operating system user. `other`: it is not the user who runs this program."""

    name: str
    uid: int
    gid: int
    other: bool

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, without root's groups and without libpq's variables."""
        # Without `group` and `extra_groups` the server would keep the rights of root's groups.
        identity: dict[str, Any] = (
            {"user": self.uid, "group": self.gid, "extra_groups": []} if self.other else {}
        )
        return subprocess.run(  # noqa: S603 (programs of ours)
            [str(part) for part in command],
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            **identity,
        )

    def owns(self, *paths: Path) -> None:
        """Give files or folders that this program made to this user."""
        if self.other:
            for path in paths:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


def server_user() -> ServerUser:
    """The user who runs this program; for root a separate user, which is created if missing.

    Raises ConfigurationError if it cannot be created.
    """
    if os.geteuid() != 0:
        return ServerUser(name_of(os.geteuid()), os.geteuid(), os.getegid(), other=False)
    try:
        entry = pwd.getpwnam(ROOTS_USER)
    except KeyError:
        _make_roots_user()
        entry = pwd.getpwnam(ROOTS_USER)
    return ServerUser(ROOTS_USER, entry.pw_uid, entry.pw_gid, other=True)


def _make_roots_user() -> None:
    ways_out = (
        f"make the user {ROOTS_USER}, run indexd as a user who is not root, or use another "
        "PostgreSQL with --database-url"
    )
    cause = f"PostgreSQL does not run as root, and the user {ROOTS_USER} is missing"
    useradd = shutil.which("useradd") or shutil.which("useradd", path=SYSTEM_PATH)
    if useradd is None:
        raise ConfigurationError(f"{cause} and there is no useradd to make it: {ways_out}")
    options = ("--system", "--user-group", "--no-create-home", "--shell", "/bin/false")
    outcome = subprocess.run(  # noqa: S603 (the system's own)
        [useradd, *options, ROOTS_USER],
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode:
        [said, *_] = outcome.stderr.splitlines() or [f"exit code {outcome.returncode}"]
        raise ConfigurationError(f"{cause} and cannot be made ({said}): {ways_out}")


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def make_folder(folder: Path, user: ServerUser) -> None:
    """Create a folder and its missing parents. Only this user and the caller may enter them.

    Folders that exist are not changed. Raises ConfigurationError if the user cannot enter one.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    require_enterable(folder if not missing else missing[-1].parent, user)
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        if user.other:
            os.chown(one, os.geteuid(), user.gid)
            one.chmod(0o750)


def require_enterable(folder: Path, user: ServerUser) -> None:
    """Raise a ConfigurationError that names the folder which the user may not enter."""
    if not user.other or _enters(user, folder):
        return
    path = [*reversed(folder.parents), folder]
    closed = next((one for one in path if not _enters(user, one)), folder)
    raise ConfigurationError(
        f"the user {user.name}, as whom PostgreSQL runs for root, may not enter {closed}: name "
        f"another folder with --data-dir, such as {ROOTS_FOLDER}, or run indexd as a user who "
        "is not root"
    )


def _enters(user: ServerUser, folder: Path) -> bool:
    # The file mode does not include access control lists, so the system itself is asked.
    return user.run("/bin/sh", "-c", 'test -x "$0"', folder).returncode == 0
