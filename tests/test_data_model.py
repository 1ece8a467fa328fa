"""docs/data-model.md is about the tables there are: those of a database at head."""

import re
from pathlib import Path
from typing import Any

import psycopg

PAGE = (Path(__file__).parents[1] / "docs" / "data-model.md").read_text()

Database = psycopg.Connection[Any]


def sections() -> dict[str, str]:
    """What stands below each heading."""
    _, *found = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def rows(section: str, heading: str) -> list[list[str]]:
    """The cells of the table that begins with this column, without the backticks around one."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", section, re.MULTILINE)
    assert table is not None, heading
    return [
        [re.sub("^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip("|").split(" | ")]
        for line in table[1].strip().splitlines()
    ]


def tables(database: Database) -> list[str]:
    found = database.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'indexd' ORDER BY tablename"
    )
    return [name for (name,) in found if name != "alembic_version"]


def test_every_table_has_a_section(clone: Database) -> None:
    others = {
        "HNSW indexes",
        "Functions",
        "Views for admins",
        "What changes which table",
    }
    assert sorted(sections().keys() - others) == tables(clone)
    assert all(name in PAGE.partition("\n## ")[0] for name in tables(clone)), "in the drawing, too"


def test_every_column_stands_in_its_table_with_its_type_and_whether_it_may_be_null(
    clone: Database,
) -> None:
    for table in tables(clone):
        columns = clone.execute(
            """
            SELECT attname, format_type(atttypid, atttypmod), attnotnull
              FROM pg_attribute
             WHERE attrelid = ('indexd.' || %s)::regclass
               AND attnum > 0
               AND NOT attisdropped
            """,
            (table,),
        ).fetchall()
        expected = {
            name: (kind.replace("timestamp with time zone", "timestamptz"), "" if full else "yes")
            for name, kind, full in columns
        }
        shown = {cells[0]: (cells[1], cells[2]) for cells in rows(sections()[table], "column")}
        assert shown == expected, f"columns of {table} in docs/data-model.md"
        assert all(cells[3] for cells in rows(sections()[table], "column"))


def test_every_index_stands_with_its_columns_and_what_its_comment_says_it_serves(
    clone: Database,
) -> None:
    for table in tables(clone):
        indexes = clone.execute(
            """
            SELECT indexname, indexdef, obj_description(('indexd.' || indexname)::regclass)
              FROM pg_indexes
             WHERE schemaname = 'indexd'
               AND tablename = %s
            """,
            (table,),
        ).fetchall()
        shown = {cells[0]: cells[1:] for cells in rows(sections()[table], "index")}
        assert shown.keys() == {name for name, _, _ in indexes}, f"indexes of {table}"
        for name, definition, comment in indexes:
            over = definition.partition(" USING ")[2].removeprefix("btree ")
            assert shown[name][0] == over
            assert shown[name][1]
            assert comment in (None, shown[name][1]), f"what {name} serves"


def test_every_function_and_view_stands_there(clone: Database) -> None:
    functions = clone.execute(
        """
        SELECT 'indexd.' || proname, obj_description(oid)
          FROM pg_proc
         WHERE pronamespace = 'indexd'::regnamespace
        """
    ).fetchall()
    assert {tuple(cells) for cells in rows(sections()["Functions"], "function")} == {*functions}
    views = clone.execute(
        "SELECT 'indexd.' || viewname FROM pg_views WHERE schemaname = 'indexd'"
    ).fetchall()
    assert {(cells[0],) for cells in rows(sections()["Views for admins"], "view")} == {*views}


def test_the_key_of_every_table_about_documents_begins_with_the_namespace(clone: Database) -> None:
    keys = clone.execute(
        """
        SELECT tablename
          FROM pg_indexes
         WHERE schemaname = 'indexd'
           AND indexname LIKE 'pk\\_%'
           AND indexdef NOT LIKE '%(namespace%'
        """
    ).fetchall()
    assert keys == [("api_keys",)]
