"""The processes of a server under test."""

from contextlib import suppress

import psutil


def workers(server: psutil.Process) -> list[psutil.Process]:
    """Those that live; a dead one is a child as well, until the server has looked."""
    found = []
    for process in server.children():
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found
