"""`python -m benchmarks [writing ...]`: run these, or all of them."""

import sys

from benchmarks import writing

ALL = {"writing": writing.run}

for name in sys.argv[1:] or ALL:
    ALL[name]()
