"""Compares the schema of a database, object by object, with the schema the migrations create.

catalogue.json lists every object that a fresh migration creates, read from PostgreSQL's system
catalogues. `scripts/catalogue.py` writes it, and a test fails if it differs from the migrations. It
is part of the package, because next to a production database there is no empty one to migrate.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

Catalogue = dict[str, dict[str, Any]]
"""The properties of each object, by its kind and name."""

SHIPPED = Path(__file__).with_name("catalogue.json")

VALUE_CHARS = 160
"""Characters: longer values are shortened in a message, so that it fits on a few lines."""

VIEWS_WITHOUT_PREFIXES = 160000
"""PostgreSQL version from which a view over one table is printed without `table.` before names."""

OURS = "'indexd'::regnamespace"
"""SQL: the oid of our schema."""

QUERIES = (
    # A crash empties unlogged tables, and row security hides rows.
    f"""
    SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                        WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
                        ELSE 'type' END || ' ' || relname,
           jsonb_build_object(
               'persistence', relpersistence,
               'row security', relrowsecurity OR relforcerowsecurity,
               'definition', CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END,
               'options', CASE WHEN relkind IN ('v', 'm') THEN reloptions END
           )
      FROM pg_class
     WHERE relnamespace = {OURS} AND relkind IN ('r', 'v', 'm', 'p', 'f', 'c')
    """,
    f"""
    SELECT 'column ' || relname || '.' || attname,
           jsonb_build_object(
               'type', format_type(atttypid, atttypmod),
               'not null', attnotnull,
               'default', CASE WHEN attgenerated = '' THEN pg_get_expr(adbin, adrelid) END,
               'generated as', CASE WHEN attgenerated <> '' THEN pg_get_expr(adbin, adrelid) END,
               'generated when', nullif(attgenerated, ''),
               'identity', nullif(attidentity, ''),
               'collation', CASE WHEN attcollation <> typcollation
                                 THEN attcollation::regcollation::text END,
               'storage', attstorage
           )
      FROM pg_attribute
      JOIN pg_class ON pg_class.oid = attrelid
      JOIN pg_type ON pg_type.oid = atttypid
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace = {OURS} AND relkind IN ('r', 'p', 'f') AND attnum > 0 AND NOT attisdropped
    """,
    # From PostgreSQL 18 on, each NOT NULL is a constraint too. These are compared only if they are
    # not validated. Foreign keys of other schemas that refer to our tables prevent deletions.
    f"""
    SELECT 'constraint ' || conname || ' of ' || nspname || '.' || relname,
           jsonb_build_object('definition', pg_get_constraintdef(pg_constraint.oid))
      FROM pg_constraint
      JOIN pg_class ON pg_class.oid = conrelid
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE (relnamespace = {OURS}
            OR confrelid IN (SELECT oid FROM pg_class WHERE relnamespace = {OURS}))
       AND (contype NOT IN ('n', 't') OR NOT convalidated)
    """,
    # The index keeper builds and drops HNSW indexes as namespaces grow and shrink.
    f"""
    SELECT 'index ' || named.relname,
           jsonb_build_object(
               'definition', pg_get_indexdef(indexrelid),
               'valid', indisvalid AND indisready AND indislive
           )
      FROM pg_index
      JOIN pg_class AS named ON named.oid = indexrelid
      JOIN pg_am ON pg_am.oid = named.relam
     WHERE named.relnamespace = {OURS}
       AND NOT (starts_with(named.relname, 'hnsw_') AND amname = 'hnsw')
    """,
    f"""
    SELECT CASE prokind WHEN 'p' THEN 'procedure ' WHEN 'a' THEN 'aggregate ' ELSE 'function ' END
           || proname || '(' || pg_get_function_identity_arguments(pg_proc.oid) || ')',
           jsonb_build_object(
               'arguments', pg_get_function_arguments(pg_proc.oid),
               'result', pg_get_function_result(pg_proc.oid),
               'language', lanname,
               'body', coalesce(pg_get_function_sqlbody(pg_proc.oid), prosrc),
               'volatility', provolatile,
               'parallel', proparallel,
               'strict', proisstrict,
               'security definer', prosecdef,
               'settings', proconfig
           )
      FROM pg_proc
      JOIN pg_language ON pg_language.oid = prolang
     WHERE pronamespace = {OURS}
    """,
    # The triggers of foreign keys are internal. They are compared only if they are disabled.
    f"""
    SELECT 'trigger ' || tgname || ' of ' || relname,
           jsonb_build_object('definition', pg_get_triggerdef(pg_trigger.oid), 'enabled', tgenabled)
      FROM pg_trigger
      JOIN pg_class ON pg_class.oid = tgrelid
     WHERE relnamespace = {OURS} AND (NOT tgisinternal OR tgenabled <> 'O')
    """,
    f"""
    SELECT 'rule ' || rulename || ' of ' || relname,
           jsonb_build_object('definition', pg_get_ruledef(pg_rewrite.oid), 'enabled', ev_enabled)
      FROM pg_rewrite
      JOIN pg_class ON pg_class.oid = ev_class
     WHERE relnamespace = {OURS} AND rulename <> '_RETURN'
    """,
    f"""
    SELECT 'statistics ' || stxname,
           jsonb_build_object('definition', pg_get_statisticsobjdef(oid))
      FROM pg_statistic_ext
     WHERE stxnamespace = {OURS}
    """,
    # A query of our table also returns the rows of a table that inherits from it.
    f"""
    SELECT 'heir ' || nspname || '.' || heir.relname || ' of ' || ours.relname, '{{}}'::jsonb
      FROM pg_inherits
      JOIN pg_class AS ours ON ours.oid = inhparent
      JOIN pg_class AS heir ON heir.oid = inhrelid
      JOIN pg_namespace ON pg_namespace.oid = heir.relnamespace
     WHERE ours.relnamespace = {OURS} AND ours.relkind IN ('r', 'p', 'f')
    """,
    f"""
    SELECT 'type ' || typname, jsonb_build_object('kind', typtype)
      FROM pg_type
     WHERE typnamespace = {OURS} AND typtype NOT IN ('b', 'c', 'p')
    """,
)
"""Each query returns rows of an object's name and its properties as JSON. Names in pg_catalog and
in the schema of the extension are printed without their schema, so the result does not depend on
where the extension is installed."""


def read(connection: psycopg.Connection[Any]) -> Catalogue:
    """Read all objects in schema indexd of this database. Begins a transaction."""
    connection.execute("""
        SELECT set_config(
            'search_path',
            concat_ws(', ', 'pg_catalog', (
                SELECT quote_ident(nspname)
                  FROM pg_extension
                  JOIN pg_namespace ON pg_namespace.oid = extnamespace
                 WHERE extname = 'vector'
            )),
            true
        )
    """)
    return {
        name: {key: value for key, value in properties.items() if value is not None}
        for query in QUERIES
        for name, properties in connection.execute(query)
    }


def shipped() -> Catalogue:
    """The objects that a fresh migration creates, from catalogue.json."""
    expected: Catalogue = json.loads(SHIPPED.read_bytes())
    return expected


def differences(connection: psycopg.Connection[Any]) -> list[str]:
    """A line for each difference between this database and a fresh migration."""
    found, expected = read(connection), shipped()
    if connection.info.server_version < VIEWS_WITHOUT_PREFIXES:
        found, expected = _without_prefixes(found), _without_prefixes(expected)
    return sorted(_lines(found, expected))


def _lines(found: Catalogue, expected: Catalogue) -> Iterator[str]:
    in_one_only = found.keys() ^ expected.keys()
    for name in found.keys() | expected.keys():
        if _table_of(name) in in_one_only:
            continue
        if name not in found:
            yield f"missing: {name}"
        elif name not in expected:
            yield f"unknown to this program: {name}{_told(found[name])}"
        else:
            for key in sorted(found[name].keys() | expected[name].keys()):
                was, wanted = found[name].get(key), expected[name].get(key)
                if was != wanted:
                    yield f"changed: {name}: {key} is {_short(was)}, expected {_short(wanted)}"


def _table_of(name: str) -> str | None:
    """The table of a column, by which columns of a missing or unknown table are left out."""
    kind, _, rest = name.partition(" ")
    return f"table {rest.partition('.')[0]}" if kind == "column" else None


def _told(properties: Mapping[str, Any]) -> str:
    definition = properties.get("definition")
    return f": {_short(definition)}" if definition else ""


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return textwrap.shorten(text, VALUE_CHARS, placeholder=" ...")


def _without_prefixes(catalogue: Catalogue) -> Catalogue:
    return {
        name: {**properties, "definition": re.sub(r"\w+\.(?=\w)", "", properties["definition"])}
        if name.startswith(("view ", "materialized view "))
        else properties
        for name, properties in catalogue.items()
    }
