"""`python -m benchmarks [writing | forgetting]`: run one of them, or all."""

import sys

from benchmarks import forgetting, writing

ALL = {"writing": writing.run, "forgetting": forgetting.run}

for name in sys.argv[1:] or ALL:
    ALL[name]()
