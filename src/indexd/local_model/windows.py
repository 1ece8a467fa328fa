"""Long texts are embedded in windows, because the model reads 512 tokens at once."""

from collections.abc import Callable, Iterator

import msgspec

TOKENS = 510
"""Tokens of a window at most. The model reads 512; two less, so that no count is too tight."""

AIM = 440
"""Tokens of a window on average. It leaves room for cutting at spaces."""

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
    for part in _parts(text, max(2, -(-tokens // AIM))):
        yield from _fitting(part, count)


def _parts(text: str, number: int) -> Iterator[str]:
    """Cut into so many parts of about equal length, each at a space if there is one near."""
    start, reach = 0, len(text) // number // 5
    for place in range(1, number):
        end = place * len(text) // number
        space = max(text.rfind(mark, end - reach, end) for mark in SPACES)
        end = space if space > start else end
        yield text[start:end]
        start = end
    yield text[start:]
