"""Long texts are embedded in windows, because the model reads 512 tokens at once."""

from collections.abc import Callable, Iterator

import msgspec

TOKENS = 510
"""Tokens of a window at most. The model reads 512; two less, so that no count is too tight."""

COUNTED = 20_000
"""Characters of a text up to which all of it is read. Of a longer one, parts are."""

PARTS = 16
"""Number of parts, spread evenly, that are read of a text with more than COUNTED characters. More
cost time, and the mean of more says no more about the text.
"""

PART = 1_200
"""Characters of such a part."""

SPACES = (" ", "\n", "\t")

Count = Callable[[str], int]
"""The number of tokens of a text, those that stand for its prefix and its ends included."""


class Window(msgspec.Struct, frozen=True):
    """A part of a text that the model can read at once."""

    text: str
    tokens: int


def of(text: str, count: Count) -> list[Window]:
    """The windows of a text, at least one. They are of about equal length and cut at spaces."""
    if len(text) <= COUNTED:
        return list(_fitting(text, count))
    step = (len(text) - PART) / (PARTS - 1)
    starts = [round(place * step) for place in range(PARTS)]
    return [window for start in starts for window in _fitting(text[start : start + PART], count)]


def _fitting(text: str, count: Count) -> Iterator[Window]:
    tokens = count(text)
    if tokens <= TOKENS or len(text) == 1:
        yield Window(text, tokens)
        return
    for part in _parts(text, -(-tokens // TOKENS)):
        yield from _fitting(part, count)


def _parts(text: str, number: int) -> Iterator[str]:
    """Cut into at least two parts, each at the last space of its last fifth if there is one."""
    size = -(-len(text) // max(2, number))
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            space = max(text.rfind(mark, end - size // 5, end) for mark in SPACES)
            end = space if space > start else end
        yield text[start:end]
        start = end
