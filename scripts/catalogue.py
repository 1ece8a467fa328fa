"""Write src/indexd/db/catalogue.json anew: what the migrations make of an empty database."""

import json
import tempfile
from pathlib import Path

import psycopg

from indexd.db import catalogue, embedded, migrate


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="indexd-catalogue-") as folder:
        Path(folder).chmod(0o755)
        with embedded.postgres(Path(folder), {"shared_buffers": "64MB"}) as url:
            migrate.upgrade(url)
            with psycopg.connect(url) as connection:
                found = catalogue.read(connection)
    catalogue.SHIPPED.write_text(printed(found))


def printed(found: catalogue.Catalogue) -> str:
    """JSON with a line for each object, so that a change of one is a change of one line."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(found[name], sort_keys=True)}" for name in sorted(found)
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
