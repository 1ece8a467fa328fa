"""The HTTP face: a handler parses, calls one store function in one transaction, answers."""
