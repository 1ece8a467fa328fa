"""Push .gewebe/embeddings.parquet to a running service: `indexd push`, with its options."""

import sys

from indexd.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "push")
    main()
