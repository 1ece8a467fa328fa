"""A long-term memory for agents and tools that forgets on purpose."""

__version__ = "0.1.0"
