"""`python -m benchmarks [writing | forgetting | search ...]`: one of them, or all."""

import sys

from benchmarks import forgetting, searching, writing

match sys.argv[1:]:
    case []:
        writing.run()
        forgetting.run()
        searching.run()
    case ["writing"]:
        writing.run()
    case ["forgetting"]:
        forgetting.run()
    case ["search", *options]:
        searching.run(options)
    case _:
        sys.exit(__doc__)
