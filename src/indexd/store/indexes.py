"""HNSW indexes: which namespaces get one, and how it is built, looked up and dropped.

A namespace has at most one that serves: a partial index over its vectors cast to halfvec, whose
predicate names namespace and dimension. Without the dimension in it, an emptied namespace would
refuse vectors of another one until the index is gone. Building and dropping run outside of
transactions, as CONCURRENTLY must.
"""

import hashlib
from typing import Literal

import msgspec
from psycopg import sql

from indexd.db.checks import NO_WRITES
from indexd.db.pool import Connection
from indexd.store import rows

MAX_DIMENSION = 4_000
"""Components of a vector that an HNSW index over halfvec can hold; longer ones are scanned."""

FEW_DEAD = 1_000
"""Removed chunks below which vacuum repairs the index: a new graph would cost more."""

State = Literal["exact", "building", "hnsw"]
Mode = Literal["auto", "always", "never"]


class Rules(msgspec.Struct, frozen=True):
    """Which namespaces get an index and how it is built: the settings index_* and hnsw_*."""

    threshold: int
    limit: int
    worn_share: float
    m: int
    ef_construction: int


class Index(msgspec.Struct, frozen=True):
    """An HNSW index of the catalogue; `done` is the share built, None unless it is being built."""

    name: str
    valid: bool
    done: float | None


class Namespace(msgspec.Struct, frozen=True):
    """A namespace with the indexes that exist for it.

    `removed` is the number of chunks ever removed, `dead` that of those that the index's graph
    still holds. `dimension` is None where it holds no vector; `chunks` counts those without one,
    too. `serves` is what the namespace's row says about its index.
    """

    name: str
    dimension: int | None
    chunks: int
    mode: Mode
    indexes: tuple[Index, ...]
    removed: int = 0
    dead: int = 0
    serves: bool = False

    @property
    def wanted(self) -> str:
        return index_name(self.name, self.dimension or 0)

    @property
    def serving(self) -> Index | None:
        return next((i for i in self.indexes if i.name == self.wanted and i.valid), None)

    def worn(self, rules: Rules) -> bool:
        """Whether a new graph costs less than the repair of this one, after many removals.

        Vacuum repairs the links of every removed node, and searches pay meanwhile: for half of
        60,000 chunks it took 67 s, where building anew took 15 s.
        """
        return self.dead > max(rules.worn_share * (self.chunks + self.dead), FEW_DEAD)


def index_name(namespace: str, dimension: int) -> str:
    """Stable, and short enough for PostgreSQL whatever the namespace is called."""
    return f"{_prefix(namespace)}{dimension}"


def _prefix(namespace: str) -> str:
    return f"hnsw_{hashlib.sha256(namespace.encode()).hexdigest()[:16]}_"


def earning(namespaces: list[Namespace], rules: Rules) -> list[Namespace]:
    """The namespaces that get an index, largest first, no more than the limit.

    Size decides; an index that serves stays until its namespace has shrunk to half the threshold.
    """

    def earns(one: Namespace) -> bool:
        if one.dimension is None or one.chunks == 0 or one.mode == "never":
            return False
        if one.dimension > MAX_DIMENSION:
            return False
        enough = rules.threshold / 2 if one.serving else rules.threshold
        return one.mode == "always" or one.chunks >= enough

    ranked = sorted(namespaces, key=lambda one: (one.mode != "always", -one.chunks, one.name))
    return [one for one in ranked if earns(one)][: rules.limit]


class Serving(msgspec.Struct, frozen=True):
    """What searches of a namespace use; `progress` is the share built, None unless one is built."""

    state: State
    progress: float | None = None
    note: str | None = None


def serving(
    namespaces: list[Namespace], rules: Rules, obstacle: str | None = None
) -> dict[str, Serving]:
    """`building` from the moment that a namespace is large enough until its index serves.

    Where an obstacle keeps the service from building, `exact` until an operator begins to build.
    """
    earn = {one.name for one in earning(namespaces, rules)}

    def of(one: Namespace) -> Serving:
        if one.serving:
            return Serving("hnsw")
        if one.name in earn:
            if obstacle is not None and not one.indexes:
                return Serving("exact", note=obstacle)
            done = next((i.done for i in one.indexes if not i.valid), None)
            return Serving("building", done, obstacle)
        if one.dimension is not None and one.dimension > MAX_DIMENSION:
            return Serving("exact", note=f"dimension over {MAX_DIMENSION:,}: always scanned")
        return Serving("exact")

    return {one.name: of(one) for one in namespaces}


class _Rights(msgspec.Struct, frozen=True):
    read_only: str | None
    role: str
    allowed: bool


RIGHTS = f"""
    /* indexd:indexes.rights */
    SELECT {NO_WRITES} AS read_only,
           current_user AS role,
           -- CREATE INDEX needs the rights of the table's owner, and CREATE in the schema.
           pg_has_role(relowner, 'USAGE')
           AND has_schema_privilege(relnamespace, 'CREATE') AS allowed
      FROM pg_class
     WHERE oid = 'indexd.chunks'::regclass
"""


async def obstacle(connection: Connection) -> str | None:
    """Why no index can be built, rebuilt or dropped on this connection; None where one can."""
    rights = await rows.first(connection, _Rights, RIGHTS, {})
    if rights is None:
        return None
    if rights.read_only is not None:
        return f"not built while the database takes no writes: {rights.read_only}"
    if not rights.allowed:
        return (
            f"the role {rights.role} may not build or drop it: "
            "run `indexd index build` as the role that owns the tables"
        )
    return None


class _Counts(msgspec.Struct, frozen=True):
    namespace: str
    dimension: int | None
    chunks: int
    mode: Mode
    removed: int
    dead: int
    serves: bool


INDEXES = """
    /* indexd:indexes.look */
    SELECT pg_class.relname AS name,
           pg_index.indisvalid AS valid,
           progress.blocks_done / nullif(progress.blocks_total, 0)::float8 AS done
      FROM pg_index
      JOIN pg_class
        ON pg_class.oid = pg_index.indexrelid
      LEFT JOIN pg_stat_progress_create_index AS progress
        ON progress.index_relid = pg_index.indexrelid
     WHERE pg_index.indrelid = 'indexd.chunks'::regclass
       AND starts_with(pg_class.relname, 'hnsw_')
"""

NAMESPACES = """
    /* indexd:indexes.namespaces */
    SELECT namespace,
           dimension,
           chunks,
           index_mode AS mode,
           chunks_removed AS removed,
           chunks_removed - greatest(chunks_removed_at_build, index_built_at) AS dead,
           index_serves AS serves
      FROM indexd.namespaces
     ORDER BY namespace
"""


async def look(connection: Connection) -> list[Namespace]:
    """Every namespace, with the indexes that exist for it."""
    indexes = await rows.every(connection, Index, INDEXES, {})
    return [
        Namespace(
            one.namespace,
            one.dimension,
            one.chunks,
            one.mode,
            tuple(index for index in indexes if index.name.startswith(_prefix(one.namespace))),
            one.removed,
            one.dead,
            one.serves,
        )
        for one in await rows.every(connection, _Counts, NAMESPACES, {})
    ]


def _literal(value: str | int) -> str:
    return sql.Literal(value).as_string()


def _index(name: str) -> str:
    return sql.Identifier("indexd", name).as_string()


# A predicate and a comment take no parameters, so names stand in them as quoted literals.


def build_statement(namespace: Namespace, rules: Rules) -> str:
    """SQL: build the index that the namespace wants, over chunks that have a vector."""
    assert namespace.dimension is not None  # noqa: S101 (one without vectors earns no index)
    return f"""
    /* indexd:indexes.build */
    CREATE INDEX CONCURRENTLY {sql.Identifier(namespace.wanted).as_string()} ON indexd.chunks
     USING hnsw ((embedding::halfvec({_literal(namespace.dimension)})) halfvec_ip_ops)
      WITH (m = {_literal(rules.m)}, ef_construction = {_literal(rules.ef_construction)})
     WHERE namespace = {_literal(namespace.name)}
       AND vector_dims(embedding) = {_literal(namespace.dimension)}
    """


def comment_statement(namespace: Namespace) -> str:
    """SQL: say on the index which namespace it serves."""
    comment = _literal(f"nearest neighbours in namespace {namespace.name}")
    return f"""
    /* indexd:indexes.comment */
    COMMENT ON INDEX {_index(namespace.wanted)} IS {comment}
    """


def rebuild_statement(namespace: Namespace) -> str:
    """SQL: build the namespace's index anew."""
    return f"""
    /* indexd:indexes.rebuild */
    REINDEX INDEX CONCURRENTLY {_index(namespace.wanted)}
    """


def drop_statement(index: str) -> str:
    """SQL: drop an index by name."""
    return f"""
    /* indexd:indexes.drop */
    DROP INDEX CONCURRENTLY IF EXISTS {_index(index)}
    """


async def build(connection: Connection, namespace: Namespace, rules: Rules) -> None:
    """Build the index that a namespace wants, while reads and writes go on."""
    await connection.execute(build_statement(namespace, rules))
    await connection.execute(comment_statement(namespace))


async def rebuild(connection: Connection, namespace: Namespace) -> None:
    """Replace the index that serves by a new one; it serves until then."""
    await connection.execute(rebuild_statement(namespace))


NOTE_BUILT = """
    /* indexd:indexes.note_built */
    UPDATE indexd.namespaces
       SET chunks_removed_at_build = %(removed)s,
           index_built_at          = %(removed)s
     WHERE namespace = %(namespace)s
"""


async def note_built(connection: Connection, namespace: Namespace) -> None:
    """Note that the index holds no chunk that was removed before `namespace` was looked up.

    index_built_at is the same number for programs of the release before; `look` takes the greater
    one, which is the later one.
    """
    await connection.execute(
        NOTE_BUILT, {"namespace": namespace.name, "removed": namespace.removed}
    )


NOTE_SERVES = """
    /* indexd:indexes.note_serves */
    UPDATE indexd.namespaces
       SET index_serves = %(serves)s
     WHERE namespace = %(namespace)s
       -- An index for another dimension serves no search.
       AND (dimension = %(dimension)s OR NOT %(serves)s)
"""


async def note_serves(connection: Connection, namespace: Namespace, *, serves: bool) -> None:
    """Note in the namespace's row whether a valid index for its dimension is there."""
    await connection.execute(
        NOTE_SERVES,
        {"namespace": namespace.name, "dimension": namespace.dimension, "serves": serves},
    )


async def drop(connection: Connection, index: str) -> None:
    """Drop an index, valid or not, while reads and writes go on."""
    await connection.execute(drop_statement(index))


SET_MODE = """
    /* indexd:indexes.set_mode */
    UPDATE indexd.namespaces
       SET index_mode = %(mode)s
     WHERE namespace = %(namespace)s
"""


async def set_mode(connection: Connection, namespace: str, mode: Mode) -> bool:
    """Leave the index to the keeper (`auto`), or have one always or never.

    False where there is no such namespace.
    """
    cursor = await connection.execute(SET_MODE, {"namespace": namespace, "mode": mode})
    return cursor.rowcount > 0
