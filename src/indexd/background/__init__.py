"""Background tasks of a server process: index keeper, key cache, exposure buffer."""
