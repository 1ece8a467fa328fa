"""HNSW indexes: which namespaces earn one, and how it is built, looked at and dropped.

A namespace has at most one that serves: a partial index over its vectors cast to halfvec, whose
predicate names namespace and dimension. Without the dimension in it, an emptied namespace would
refuse vectors of another one until the index is gone. Building and dropping run outside of
transactions, as CONCURRENTLY must.
"""

import hashlib
from typing import Literal

import msgspec
from psycopg import sql

from indexd.db.pool import NO_WRITES, Connection

MAX_DIMENSION = 4_000
"""What an HNSW index over halfvec can hold; longer vectors are always scanned exactly."""

FEW_DEAD = 1_000
"""So few removed chunks are left to vacuum."""

State = Literal["exact", "building", "hnsw"]
Mode = Literal["auto", "always", "never"]


class Rules(msgspec.Struct, frozen=True):
    """Who earns an index and how it is built: the settings index_* and hnsw_*."""

    threshold: int
    limit: int
    worn_share: float
    m: int
    ef_construction: int


class Index(msgspec.Struct, frozen=True):
    """An HNSW index as the catalogue has it; `done` is the share built, while it is built."""

    name: str
    valid: bool
    done: float | None


class Namespace(msgspec.Struct, frozen=True):
    """A namespace with the indexes that are there for it.

    `removed` are the chunks ever removed, `dead` those of them that the index's graph still holds.
    """

    name: str
    dimension: int
    chunks: int
    mode: Mode
    indexes: tuple[Index, ...]
    removed: int = 0
    dead: int = 0

    @property
    def wanted(self) -> str:
        return index_name(self.name, self.dimension)

    @property
    def serving(self) -> Index | None:
        return next((i for i in self.indexes if i.name == self.wanted and i.valid), None)

    def worn(self, rules: Rules) -> bool:
        """So much was removed that a new graph costs less than having this one repaired.

        Vacuum mends the links of every removed node, and searches pay meanwhile: for half of
        60,000 chunks it took 67 s, where building anew took 15 s.
        """
        return self.dead > max(rules.worn_share * (self.chunks + self.dead), FEW_DEAD)


def index_name(namespace: str, dimension: int) -> str:
    """Stable, and short enough for PostgreSQL whatever the namespace is called."""
    return f"{_prefix(namespace)}{dimension}"


def _prefix(namespace: str) -> str:
    return f"hnsw_{hashlib.sha256(namespace.encode()).hexdigest()[:16]}_"


def earning(namespaces: list[Namespace], rules: Rules) -> list[Namespace]:
    """Those that shall have an index, largest first, no more than the limit.

    Size decides; an index that serves stays until its namespace shrank to half the threshold.
    """

    def earns(one: Namespace) -> bool:
        if one.dimension > MAX_DIMENSION or one.chunks == 0 or one.mode == "never":
            return False
        enough = rules.threshold / 2 if one.serving else rules.threshold
        return one.mode == "always" or one.chunks >= enough

    ranked = sorted(namespaces, key=lambda one: (one.mode != "always", -one.chunks, one.name))
    return [one for one in ranked if earns(one)][: rules.limit]


class Serving(msgspec.Struct, frozen=True):
    """What searches of a namespace use; `progress` is the share built, while one is built."""

    state: State
    progress: float | None = None
    note: str | None = None


def serving(
    namespaces: list[Namespace], rules: Rules, obstacle: str | None = None
) -> dict[str, Serving]:
    """`building` from the moment a namespace earns an index until that serves.

    Where an obstacle keeps the service from building, `exact` until somebody else began to build.
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
        if one.dimension > MAX_DIMENSION:
            return Serving("exact", note=f"dimension over {MAX_DIMENSION:,}: always scanned")
        return Serving("exact")

    return {one.name: of(one) for one in namespaces}


async def obstacle(connection: Connection) -> str | None:
    """Why no index can be built, rebuilt or dropped on this connection; None where one can."""
    cursor = await connection.execute(f"""
        SELECT {NO_WRITES},
               current_user,
               -- What CREATE INDEX wants: the rights of the table's owner, and room in the schema.
               pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE')
          FROM pg_class
         WHERE oid = 'indexd.chunks'::regclass
    """)
    read_only, role, allowed = await cursor.fetchone() or (None, "", True)
    if read_only is not None:
        return f"not built while the database takes no writes: {read_only}"
    if not allowed:
        return (
            f"the role {role} may not build or drop it: "
            "run `indexd index build` as the role that owns the tables"
        )
    return None


async def look(connection: Connection) -> list[Namespace]:
    """Every namespace, and what indexes there are for it."""
    cursor = await connection.execute("""
        SELECT pg_class.relname,
               pg_index.indisvalid,
               progress.blocks_done / nullif(progress.blocks_total, 0)::float8
          FROM pg_index
          JOIN pg_class
            ON pg_class.oid = pg_index.indexrelid
          LEFT JOIN pg_stat_progress_create_index AS progress
            ON progress.index_relid = pg_index.indexrelid
         WHERE pg_index.indrelid = 'indexd.chunks'::regclass
           AND starts_with(pg_class.relname, 'hnsw_')
    """)
    indexes = [Index(*row) for row in await cursor.fetchall()]
    cursor = await connection.execute("""
        SELECT namespace, dimension, chunks, index_mode, chunks_removed,
               chunks_removed - greatest(chunks_removed_at_build, index_built_at)
          FROM indexd.namespaces
         ORDER BY namespace
    """)
    return [
        Namespace(
            name,
            dimension,
            chunks,
            mode,
            tuple(index for index in indexes if index.name.startswith(_prefix(name))),
            removed,
            dead,
        )
        for name, dimension, chunks, mode, removed, dead in await cursor.fetchall()
    ]


async def build(connection: Connection, namespace: Namespace, rules: Rules) -> None:
    """Build the index a namespace wants, while reads and writes go on."""
    # A literal namespace and dimension: both stand in the predicate, which takes no parameters.
    await connection.execute(
        sql.SQL("""
            CREATE INDEX CONCURRENTLY {index} ON indexd.chunks
             USING hnsw ((embedding::halfvec({dimension})) halfvec_ip_ops)
              WITH (m = {m}, ef_construction = {ef_construction})
             WHERE namespace = {namespace} AND vector_dims(embedding) = {dimension}
        """).format(
            index=sql.Identifier(namespace.wanted),
            dimension=sql.Literal(namespace.dimension),
            namespace=sql.Literal(namespace.name),
            m=sql.Literal(rules.m),
            ef_construction=sql.Literal(rules.ef_construction),
        )
    )
    await connection.execute(
        sql.SQL("COMMENT ON INDEX {} IS {}").format(
            sql.Identifier("indexd", namespace.wanted),
            sql.Literal(f"nearest neighbours in namespace {namespace.name}"),
        )
    )


async def rebuild(connection: Connection, namespace: Namespace) -> None:
    """Put a new index in the place of the one that serves, which goes on meanwhile."""
    await connection.execute(
        sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier("indexd", namespace.wanted))
    )


async def note_built(connection: Connection, namespace: Namespace) -> None:
    """Its index holds nothing that was removed before `namespace` was looked at.

    index_built_at is the same number for programs of the release before; `look` takes the greater
    one, which is the later one.
    """
    await connection.execute(
        """
        UPDATE indexd.namespaces
           SET chunks_removed_at_build = %(removed)s,
               index_built_at          = %(removed)s
         WHERE namespace = %(namespace)s
        """,
        {"namespace": namespace.name, "removed": namespace.removed},
    )


async def drop(connection: Connection, index: str) -> None:
    """Drop an index, valid or not, while reads and writes go on."""
    await connection.execute(
        sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier("indexd", index))
    )


async def set_mode(connection: Connection, namespace: str, mode: Mode) -> bool:
    """Leave the index to the keeper (`auto`), or have it always or never; False if unknown."""
    cursor = await connection.execute(
        """
        UPDATE indexd.namespaces
           SET index_mode = %(mode)s
         WHERE namespace = %(namespace)s
        """,
        {"namespace": namespace, "mode": mode},
    )
    return cursor.rowcount > 0
