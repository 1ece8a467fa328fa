"""The command line: `indexd serve | push | search | reembed | keys | db | policy ...`."""

import sys
from importlib import import_module
from types import MappingProxyType

import click

from indexd import __version__
from indexd.cli.lazy import LazyGroup, Place
from indexd.cli.text import say
from indexd.errors import IndexdError

PLACES = MappingProxyType(
    {
        "backup": Place(
            "indexd.cli.backup",
            "Write documents, policies, keys (hashed) and the audit to FILE, while the service "
            "runs.",
        ),
        "db": Place("indexd.cli.database", "Migrate the database, or look at where it is."),
        "doctor": Place(
            "indexd.cli.doctor",
            "Check versions, settings, embedder, database, clock, indexes, orphaned rows, disk.",
        ),
        "index": Place(
            "indexd.cli.index", "HNSW indexes: list them, and decide which namespaces have one."
        ),
        "keys": Place("indexd.cli.keys", "API keys: make one, list them, revoke one."),
        "policy": Place(
            "indexd.cli.policy",
            "Retention policies: how fast namespaces fade and what they may hold.",
        ),
        "psql": Place(
            "indexd.cli.database",
            "Open psql on the memory; ARGUMENTS are psql's own, such as -c 'SELECT ...'.",
        ),
        "push": Place(
            "indexd.cli.push",
            "Push the rows of FILE, a parquet file (default .gewebe/embeddings.parquet).",
        ),
        "reembed": Place(
            "indexd.cli.reembed",
            "Embed all texts of NAMESPACE again, with the embedder of the settings.",
        ),
        "restore": Place(
            "indexd.cli.backup", "Put what FILE holds into a database, whole or not at all."
        ),
        "search": Place(
            "indexd.cli.search",
            "Search NAMESPACE for TEXT: by meaning where an embedder serves it, else by its words.",
        ),
        "serve": Place("indexd.cli.serve", "Serve the HTTP API until SIGTERM."),
        "settings": Place(
            "indexd.cli.settings",
            "List every setting as a Markdown table: variable, default, what it does.",
        ),
    }
)


@click.group(cls=LazyGroup, places=PLACES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="indexd")
def commands() -> None:
    """A long-term memory for agents and tools that forgets on purpose."""


def main() -> None:
    """Run a command. An expected error is one line on standard error and exit code 1."""
    try:
        commands()
    except Exception as error:
        said = _said(error)
        if said is None:
            raise
        for line in f"indexd: {said}".splitlines():
            say(line, err=True)
        sys.exit(1)


def _said(error: Exception) -> str | None:
    """One line about an error that is expected, None for another one."""
    if isinstance(error, IndexdError):
        return error.message
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    # Imported here, because it imports the drivers of the database.
    said: str | None = import_module("indexd.cli.database_errors").said(error)
    return said
