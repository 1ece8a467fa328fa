"""`python -m benchmarks [NAME [OPTIONS]]`: one measurement, or all but the soak.

push        push, upsert and search over HTTP, against the same work without HTTP
forgetting  forgetting at size, and writing into a full namespace
filters     `where` over 40,000 documents, next to SQL written by hand
search      search under decay, with filters and by many clients, at several sizes
hybrid      whether hybrid finds more than words or meaning alone
embedder    what a dead embedder costs
auth        what authentication costs, and how soon a revoked key is refused
overload    twice the load that the service can bear
soak        mixed load with forgetting for a long time; --chaos breaks things meanwhile
"""

import sys

from benchmarks.load import auth, embedder, overload, soak
from benchmarks.search import decay, filters, hybrid
from benchmarks.writing import forgetting, push

WITHOUT_OPTIONS = {
    "push": push.run,
    "forgetting": forgetting.run,
    "filters": filters.run,
    "hybrid": hybrid.run,
    "embedder": embedder.run,
    "auth": auth.run,
    "overload": overload.run,
}
WITH_OPTIONS = {"search": decay.run, "soak": soak.run}

match sys.argv[1:]:
    case []:
        decay.run()
        for run in WITHOUT_OPTIONS.values():
            run()
    case [name, *options] if name in WITH_OPTIONS:
        WITH_OPTIONS[name](options)
    case [name] if name in WITHOUT_OPTIONS:
        WITHOUT_OPTIONS[name]()
    case _:
        sys.exit(__doc__)
