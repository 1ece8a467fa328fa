"""A group of commands that imports the module of a command when the command is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click


class Place(NamedTuple):
    """The module of a command, and the line that the group's help shows for the command."""

    module: str
    line: str


class LazyGroup(click.Group):
    """A group that knows of each command the module and one line.

    The modules of all commands together take a second to import. Only the module of the command
    that runs is imported, and none for the group's own help. The command has its own name in the
    module.
    """

    def __init__(self, *, places: Mapping[str, Place], **named: object) -> None:
        super().__init__(**named)  # type: ignore[arg-type] # options of click.Group
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.command_of(cmd_name) if cmd_name in self.places else None

    def command_of(self, name: str) -> click.Command:
        """The command of this name; its module is imported."""
        found: click.Command = getattr(import_module(self.places[name].module), name)
        return found

    def listed(self, name: str) -> click.Command:
        """A command that only has the name and the line, to be listed."""
        return click.Command(name, help=self.places[name].line)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(len(name) for name in names)
        rows = [(name, self.listed(name).get_short_help_str(width)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
