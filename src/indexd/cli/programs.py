"""PostgreSQL's own programs: where they are, and how they are told of a database."""

import os
import shutil

from indexd import embedded
from indexd.errors import ConfigurationError
from indexd.urls import for_command_line


def program(name: str) -> str:
    """The one that comes along, else that on the PATH. Raises ConfigurationError."""
    own = embedded.BINARIES / name
    path = str(own) if own.exists() else shutil.which(name)
    if path is None:
        raise ConfigurationError(f"{name} is neither part of indexd here nor on the PATH")
    return path


def target(url: str) -> tuple[str, dict[str, str]]:
    """The argument that names the database, and an environment with the password, if any."""
    conninfo, secrets = for_command_line(url)
    return f"--dbname={conninfo}", os.environ | secrets
