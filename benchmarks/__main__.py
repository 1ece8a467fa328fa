"""`python -m benchmarks [writing | forgetting]`: run one of them, or all."""

import sys

from benchmarks import auth, forgetting, overload, writing

ALL = {
    "writing": writing.run,
    "forgetting": forgetting.run,
    "auth": auth.run,
    "overload": overload.run,
}

for name in sys.argv[1:] or ALL:
    ALL[name]()
