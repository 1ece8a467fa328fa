"""The part of a text where the words of a query stand, and the places of these words in it."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.search import words
from indexd.store.search.hits import Hit
from indexd.store.search.terms import Asked

LENGTH = 240
"""Characters of an excerpt at most."""

LOOKED_AT = 100_000
"""Characters of all texts of an answer together that are looked through for excerpts."""

MOST_FORMS = 2_000
"""Different words of the texts of one answer that PostgreSQL is asked about."""

BEFORE = 60
"""Characters that an excerpt shows before the first word at most."""

_JOINED = re.compile(r"\w+(?:[-._/@:+]+\w+)*")
_PART = re.compile(r"[^\W_]+")
_JOINTS = re.compile(r"[-._/@:+]")
_TWO_VOWELS = re.compile(r"([aou])e")

Span = tuple[int, int]
"""Offsets of the first character and of the one after the last."""


class _Form(msgspec.Struct, frozen=True):
    form: str
    lexemes: list[str]


class Spot(msgspec.Struct, frozen=True):
    """Where a word stands in a text, and the lexemes of the query that it has."""

    start: int
    end: int
    lexemes: frozenset[str]


async def with_excerpts(connection: Connection, asked: Asked, found: Sequence[Hit]) -> list[Hit]:
    """The same hits, with the part of the text where their words stand."""
    if not asked.terms:
        return list(found)
    lexemes = [term.lexeme for term in asked.terms]
    starts = re.compile("|".join(sorted({re.escape(lexeme[:2]) for lexeme in lexemes})))
    each = LOOKED_AT // max(len(found), 1)
    texts = [_shown(hit) for hit in found]
    joined = {form for text in texts for form in _JOINED.findall(text[:each])}
    candidates = [form for form in joined if _may_have(form, starts)]
    forms = sorted({one for form in candidates for one in (form, *_PART.findall(form))})
    values = {"forms": forms[:MOST_FORMS], "lexemes": lexemes}
    said = await rows.every(connection, _Form, words.FORMS, values) if forms else []
    known = {one.form: frozenset(one.lexemes) for one in said}
    weights = {term.lexeme: term.weight for term in asked.terms}
    return [
        _excerpted(hit, text, list(_places(text[:each], known, weights)), weights)
        for hit, text in zip(found, texts, strict=True)
    ]


def _shown(hit: Hit) -> str:
    own = hit.meta.get("snippet")
    return own if isinstance(own, str) else hit.text


def _excerpted(hit: Hit, text: str, places: Sequence[Spot], weights: Mapping[str, float]) -> Hit:
    if isinstance(hit.meta.get("snippet"), str):
        start, end = 0, _end(text, 0)
    else:
        start, end = best_part(text, places, weights)
    inside = tuple(
        (place.start - start, place.end - start)
        for place in places
        if place.start >= start and place.end <= end
    )
    return replace(hit, excerpt=text[start:end], highlights=inside)


def best_part(text: str, places: Sequence[Spot], weights: Mapping[str, float]) -> Span:
    """Offsets of the part that holds the weightiest words, the first of several."""
    if len(text) <= LENGTH:
        return 0, len(text)
    begin = len(text) - len(text.lstrip())
    best, heaviest = begin, _weight(places, 0, begin + LENGTH, weights)
    for first, place in enumerate(places):
        # What stands before the place is room for the words around it, not for more of them.
        if place.start - BEFORE <= begin:
            continue
        weight = _weight(places, first, place.start + LENGTH - BEFORE, weights)
        if weight > heaviest * (1 + 1e-9):
            best, heaviest = place.start, weight
    start = _start(text, best, begin)
    return start, _end(text, start)


def _weight(places: Sequence[Spot], first: int, until: int, weights: Mapping[str, float]) -> float:
    """What the words weigh together, each once, that stand from the first place on until there."""
    held: set[str] = set()
    for place in places[first:]:
        if place.end > until:
            break
        held |= place.lexemes
    return sum(weights[lexeme] for lexeme in held)


def _start(text: str, place: int, begin: int) -> int:
    """The start of a word, a little before the place."""
    if place - BEFORE <= begin:
        return begin
    space = re.compile(r"\s\S").search(text, place - BEFORE, place + 1)
    return space.end() - 1 if space else place


def _end(text: str, start: int) -> int:
    """The end of a word, at most LENGTH characters from the start."""
    if len(text) - start <= LENGTH:
        return len(text.rstrip()) if text.rstrip() else len(text)
    shown = text[start : start + LENGTH + 1]
    cut = max(shown.rfind(space) for space in " \n\t")
    # A word that is longer than half of it is cut itself: no more than the start would be left.
    return start + len((shown[:cut] if cut > LENGTH / 2 else shown[:LENGTH]).rstrip())


def _places(
    text: str, known: Mapping[str, frozenset[str]], weights: Mapping[str, float]
) -> Iterator[Spot]:
    """Where words of the query stand: a part of a joined word where that has one, else the whole.

    Of scripts without spaces the pairs of letters themselves.
    """
    pairs = [lexeme for lexeme in weights if len(lexeme) <= 2 and _is_paired(lexeme)]
    for joined in _JOINED.finditer(text):
        if joined[0].isascii() and joined[0] not in known:
            continue  # where no part is known either, for a whole has the stems of its parts
        found = False
        for part in _PART.finditer(joined[0]):
            start = joined.start() + part.start()
            if any(_is_paired(letter) for letter in part[0]):
                for place in _pairs(part[0], pairs):
                    found = True
                    yield Spot(start + place.start, start + place.end, place.lexemes)
            elif part[0] in known:
                found = True
                yield Spot(start, start + len(part[0]), known[part[0]])
        if not found and joined[0] in known and not any(map(_is_paired, joined[0])):
            yield Spot(joined.start(), joined.end(), known[joined[0]])


def _pairs(text: str, pairs: Sequence[str]) -> Iterator[Spot]:
    """Runs of pairs that touch or overlap, each as one place."""
    spots = sorted(
        (match.start(), match.start() + len(pair), pair)
        for pair in pairs
        for match in re.finditer(f"(?={re.escape(pair)})", text)
    )
    run: list[tuple[int, int, str]] = []
    for spot in spots:
        if run and spot[0] > max(end for _, end, _ in run):
            yield _run(run)
            run = []
        run.append(spot)
    if run:
        yield _run(run)


def _run(spots: Sequence[tuple[int, int, str]]) -> Spot:
    return Spot(
        min(start for start, _, _ in spots),
        max(end for _, end, _ in spots),
        frozenset(pair for _, _, pair in spots),
    )


def _is_paired(letter: str) -> bool:
    """Whether it is of a script without spaces between words."""
    return bool(letter) and letter[0] >= "\u0e00" and letter[0].isalpha()


def _may_have(form: str, starts: re.Pattern[str]) -> bool:
    """Whether a word may have a stem that starts so: stems keep the start of their word, folded."""
    plain = form.lower()
    if not plain.isascii():
        plain = "".join(
            letter
            for letter in unicodedata.normalize("NFKD", plain.replace("ß", "ss"))
            if not unicodedata.combining(letter)
        )
    if starts.search(plain):
        return True
    bare = _JOINTS.sub("", plain)
    return bool(starts.search(bare) or starts.search(_TWO_VOWELS.sub(r"\1", bare)))
