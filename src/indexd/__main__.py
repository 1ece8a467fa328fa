"""`python -m indexd` is `indexd`."""

from indexd.cli import main

main()
