"""`indexd settings`: the table of all settings."""

import click

from indexd.settings import rows


@click.command()
def settings() -> None:
    """List every setting as a Markdown table: variable, default, what it does."""
    for line in table():
        click.echo(line)


def table() -> list[str]:
    return [
        "| variable | default | what it does |",
        "|---|---|---|",
        *(
            f"| `{row.variable}` | {'' if row.default is None else f'`{row.default}`'} "
            f"| {row.help} |"
            for row in rows()
        ),
    ]
