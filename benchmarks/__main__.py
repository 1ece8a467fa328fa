"""`python -m benchmarks [NAME [OPTIONS]]`: writing, forgetting, search, hybrid, ... or all."""

import sys

from benchmarks import auth, embedder, forgetting, hybrid, overload, searching, writing

ALL = {
    "writing": writing.run,
    "forgetting": forgetting.run,
    "search": searching.run,
    "hybrid": hybrid.run,
    "embedder": embedder.run,
    "auth": auth.run,
    "overload": overload.run,
}

match sys.argv[1:]:
    case []:
        for run in ALL.values():
            run()
    case ["search", *options]:
        searching.run(options)
    case [name] if name in ALL:
        ALL[name]()
    case _:
        sys.exit(__doc__)
