"""`python -m benchmarks [writing | forgetting | search ... | hybrid | embedder]`: one, or all."""

import sys

from benchmarks import embedder, forgetting, hybrid, searching, writing

match sys.argv[1:]:
    case []:
        writing.run()
        forgetting.run()
        searching.run()
        hybrid.run()
        embedder.run()
    case ["writing"]:
        writing.run()
    case ["forgetting"]:
        forgetting.run()
    case ["search", *options]:
        searching.run(options)
    case ["hybrid"]:
        hybrid.run()
    case ["embedder"]:
        embedder.run()
    case _:
        sys.exit(__doc__)
