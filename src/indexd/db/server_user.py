"""As whom the embedded PostgreSQL runs, and which folders that user may enter.

PostgreSQL refuses to run as root, so for root it runs as a user of its own. No folder that was
there before is opened to that user: a start that would need it is refused.
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
"""As whom PostgreSQL runs for root."""

SYSTEM_PATH = "/usr/sbin:/sbin"
"""Where useradd is on most systems, also where root's PATH leaves it out, as cron does."""


class ServerUser(msgspec.Struct, frozen=True):
    """`other` says that it is not the user who runs this program."""

    name: str
    uid: int
    gid: int
    other: bool

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, with none of root's groups and of libpq's settings."""
        # Without the group, the server would keep root's, and with it what root's group may do.
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
    """Who runs this, or for root a user of its own, made if missing. Raises ConfigurationError."""
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
    """Make it and its missing parents, for this user and who runs this alone; others are not
    touched. Raises ConfigurationError if the user could not enter it.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    require_enterable(folder if not missing else missing[-1].parent, user)
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        if user.other:
            os.chown(one, os.geteuid(), user.gid)
            one.chmod(0o750)


def require_enterable(folder: Path, user: ServerUser) -> None:
    """Raises ConfigurationError that names the folder which the user may not enter."""
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
    # Asked of the system and not of the mode, which says nothing about access control lists.
    return user.run("/bin/sh", "-c", 'test -x "$0"', folder).returncode == 0
