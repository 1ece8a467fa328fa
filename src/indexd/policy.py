"""Reads retention policies from a YAML file, and checks them. Each error names the wrong key.

policies/indexd_retention.yaml, the default file, describes the keys.
"""

import difflib
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from indexd.errors import ConfigurationError, InvalidField, UnknownField
from indexd.names import MAX_NAMESPACE

Strategy = Literal["oldest", "lowest_score"]


class Semantic(msgspec.Struct, frozen=True):
    """When a document that searches return counts as irrelevant: all four conditions must hold.

    `min_score` is a similarity; the document's best similarity ever must be below it.
    """

    min_score: Annotated[float, Meta(description="The best similarity it reached lies below this")]
    min_age_seconds: Annotated[float, Meta(description="Its age in seconds is at least this")] = (
        7 * 86400.0
    )
    min_exposures: Annotated[
        int, Meta(description="At least this number of searches returned it")
    ] = 20
    min_days: Annotated[
        int, Meta(description="These searches were on at least this number of days")
    ] = 3


class Policy(msgspec.Struct, frozen=True):
    """The rules of decay and retention in one namespace."""

    half_life_seconds: Annotated[
        float | None, Meta(description="Seconds in which a score halves; null: no decay")
    ] = None
    max_items: Annotated[
        int | None,
        Meta(description="Number of documents the namespace may hold at most; null: no limit"),
    ] = None
    max_age_seconds: Annotated[
        float | None,
        Meta(description="Age in seconds at which a document is removed; null: none is"),
    ] = None
    purge_strategy: Annotated[
        Strategy | None, Meta(description="Which documents leave first above `max_items`")
    ] = None
    grace_seconds: Annotated[
        float,
        Meta(
            description="Seconds after its arrival in which only the age limit removes a document"
        ),
    ] = 0.0
    semantic: Annotated[
        Semantic | None, Meta(description="When a document counts as irrelevant; null: never")
    ] = None


class Policies(msgspec.Struct, frozen=True):
    """The content of a policy file. A namespace that is not listed has the defaults."""

    defaults: Policy
    namespaces: dict[str, Policy]
    source: str

    def of(self, namespace: str) -> Policy:
        return self.namespaces.get(namespace, self.defaults)

    def seen_by(self, sees: Callable[[str], bool]) -> Self:
        """The policies of the namespaces that the caller sees, without the name of the file."""
        seen = {name: policy for name, policy in self.namespaces.items() if sees(name)}
        return replace(self, namespaces=seen, source="")

    @property
    def hash(self) -> str:
        """A digest of the meaning: comments and formatting of the file do not change it."""
        meaning = msgspec.json.encode((self.defaults, self.namespaces), order="sorted")
        return hashlib.sha256(meaning).hexdigest()


def shipped() -> Path:
    """The default file. In a wheel, it is inside the package."""
    inside = Path(__file__).parent / "policies"
    home = inside if inside.exists() else Path(__file__).parents[2] / "policies"
    return home / "indexd_retention.yaml"


def load(path: Path) -> Policies:
    """Read a file. Raises ConfigurationError with file and key (`namespaces.chronik.max_items`)."""
    try:
        read = msgspec.yaml.decode(path.read_bytes()) or {}
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    try:
        return parse(read, str(path))
    except InvalidField as error:
        raise ConfigurationError(f"{path}: {error.message}") from error


def parse(read: Any, source: str) -> Policies:
    """The policies of a decoded YAML file. Raises InvalidField."""
    sections = _mapping(read, "the file", ("defaults", "namespaces"))
    defaults = parse_policy(sections.get("defaults") or {}, "defaults", Policy())
    listed = _mapping(sections.get("namespaces") or {}, "namespaces", None)
    return Policies(
        defaults=defaults,
        namespaces={
            name: parse_policy(keys or {}, f"namespaces.{name}", defaults)
            for name, keys in _named(listed).items()
        },
        source=source,
    )


def _named(listed: Mapping[Any, Any]) -> dict[str, Any]:
    """The sections by trimmed namespace. Raises InvalidField for a wrong or repeated name."""
    found: dict[str, Any] = {}
    for key, keys in listed.items():
        if not isinstance(key, str) or not 1 <= len(key.strip()) <= MAX_NAMESPACE:
            raise InvalidField(
                f"namespaces.{key}: expected a name of 1 to {MAX_NAMESPACE} characters as a text"
            )
        if (name := key.strip()) in found:
            raise InvalidField(f"namespaces.{name}: is there twice")
        found[name] = keys
    return found


def parse_policy(keys: Any, where: str, defaults: Policy) -> Policy:
    """One policy. A missing key has the value of `defaults`. Raises InvalidField."""
    given = _mapping(keys, where, Policy.__struct_fields__)
    values = msgspec.structs.asdict(defaults) | dict(given)
    found = Policy(
        half_life_seconds=_seconds(values, "half_life_seconds", where),
        max_items=_count(values, "max_items", where),
        max_age_seconds=_seconds(values, "max_age_seconds", where),
        purge_strategy=_strategy(values, where),
        grace_seconds=_grace(values, where),
        semantic=_semantic(values["semantic"], f"{where}.semantic"),
    )
    if found.max_items is not None and found.purge_strategy is None:
        raise InvalidField(
            f"{where}.purge_strategy: expected oldest or lowest_score, because max_items is set"
        )
    return found


def _mapping(value: Any, where: str, allowed: tuple[str, ...] | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidField(f"{where}: expected keys and values")
    for key in value:
        if allowed is not None and key not in allowed:
            nearest = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
            raise UnknownField(
                f"{where}.{key}: unknown field, expected {', '.join(allowed)}",
                hint=f"did you mean {nearest[0]}?" if nearest else "leave it out",
            )
    return value


def _seconds(values: Mapping[str, Any], key: str, where: str) -> float | None:
    value = values[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidField(f"{where}.{key}: expected a number of seconds or null, got {value!r}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InvalidField(f"{where}.{key}: expected a positive finite number or null")
    return seconds


def _count(values: Mapping[str, Any], key: str, where: str) -> int | None:
    value = values[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**63:
        raise InvalidField(f"{where}.{key}: expected a whole number from 1 or null, got {value!r}")
    return value


def _strategy(values: Mapping[str, Any], where: str) -> Strategy | None:
    value = values["purge_strategy"]
    if value is None or value in get_args(Strategy):
        return value  # type: ignore[no-any-return]  # it is one of the literals
    if value == "random":
        raise InvalidField(
            f"{where}.purge_strategy: 'random' is forbidden, use oldest or lowest_score"
        )
    raise InvalidField(f"{where}.purge_strategy: {value!r} is unknown, use oldest or lowest_score")


def _grace(values: Mapping[str, Any], where: str) -> float:
    return 0.0 if values["grace_seconds"] == 0 else _seconds(values, "grace_seconds", where) or 0.0


def _semantic(value: Any, where: str) -> Semantic | None:
    if value is None or isinstance(value, Semantic):
        return value
    given = _mapping(value, where, Semantic.__struct_fields__)
    values = {"min_age_seconds": None, "min_exposures": None, "min_days": None, **given}
    score = given.get("min_score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 < score <= 1:
        raise InvalidField(f"{where}.min_score: expected a similarity above 0, at most 1")
    found: dict[str, Any] = {
        "min_age_seconds": _seconds(values, "min_age_seconds", where),
        "min_exposures": _count(values, "min_exposures", where),
        "min_days": _count(values, "min_days", where),
    }
    kept = {key: value for key, value in found.items() if value is not None}
    return Semantic(min_score=float(score), **kept)
