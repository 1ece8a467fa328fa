"""The command line: `indexd serve | push | reembed | keys | db | policy | index | psql ...`."""

import sys

import click

from indexd import __version__
from indexd.cli import backup, database, doctor, index, keys, push, reembed, serve
from indexd.cli import policy as policy_command
from indexd.cli import settings as settings_command
from indexd.errors import IndexdError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="indexd")
def commands() -> None:
    """A long-term memory for agents and tools that forgets on purpose."""


commands.add_command(serve.serve)
commands.add_command(push.push)
commands.add_command(keys.keys)
commands.add_command(database.db)
commands.add_command(database.psql)
commands.add_command(doctor.doctor)
commands.add_command(backup.backup)
commands.add_command(backup.restore)
commands.add_command(index.index)
commands.add_command(reembed.reembed)
commands.add_command(policy_command.policy)
commands.add_command(settings_command.settings)


def main() -> None:
    """Errors of ours are one line on standard error and exit code 1, not a traceback."""
    try:
        commands()
    except IndexdError as error:
        click.echo(f"indexd: {error.message}", err=True)
        sys.exit(1)
