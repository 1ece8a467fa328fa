"""Text for the terminal."""

import click


def printable(text: str) -> str:
    """The text with escapes for control characters.

    Most text comes from clients, and control characters could change the state of the terminal.
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def say(line: str, *, err: bool = False) -> None:
    """Print one line, with control characters escaped."""
    click.echo(printable(line), err=err)
