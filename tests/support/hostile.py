"""Values that Python carries happily and PostgreSQL, JSON or a naive encoder does not."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections import ChainMap, OrderedDict, UserDict, deque, namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st


class Raising:
    """Nothing that is asked of it works."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


class NoClass:
    """Even `isinstance` raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Broken(Mapping[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no items")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


class Text(str):
    """Text that says something else of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Nameless(type):
    """A metaclass whose classes have no name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class OfNameless(Raising, metaclass=Nameless):
    """An instance names no type and no text."""


class Colour(enum.Enum):
    RED = "red"
    NUL = "\x00"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Any]


Point = namedtuple("Point", "x y")  # noqa: PYI024


class OfTuples(enum.Enum):
    """Its value is a tuple that holds more."""

    NESTED = ((1, 2), [3])


def circle() -> list[Any]:
    """Return a list that holds itself, by way of a dict."""
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    return ring


def circle_through_tuple() -> dict[str, Any]:
    """Return a dict with a list that holds itself, by way of a tuple."""
    ring: list[Any] = []
    ring.append((ring,))
    return {"ring": ring}


def deep_tuples(levels: int) -> Any:
    """Return so many tuples in one another."""
    nested: Any = "core"
    for _ in range(levels):
        nested = (nested,)
    return nested


def deep(levels: int) -> Any:
    """Return so many lists in one another."""
    nested: Any = "core"
    for _ in range(levels):
        nested = [nested]
    return nested


def each() -> dict[str, Any]:
    """Return one value, by name, of every kind in the table of the design notes."""
    return {
        "nul": "a\x00b",
        "nul_escape": "\\u0000",
        "nul_key": {"\x00": 1},
        "surrogate": "a\ud800b",
        "surrogate_pair_halves": "\udc00\ud800",
        "surrogate_key": {"\udfff": 1},
        "nan": float("nan"),
        "infinity": float("inf"),
        "minus_infinity": float("-inf"),
        "nan_in_list": [1.5, float("nan"), None],
        "big_int": 2**64,
        "huge_int": 10**5000,
        "huge_float": 1.7976931348623157e308,
        "int_key": {1: "a", 2.5: "b", False: "c", None: "d"},
        "tuple_key": {(1, 2): "a"},
        "nan_key": {float("nan"): 1},
        "hostile_key": {Colour.RED: 1, b"x": 2, 10**5000: 3, frozenset(): 4},
        "set": {3, 1, 2},
        "mixed_set": {1, "a", None},
        "frozenset": frozenset({"b", "a"}),
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abc"),
        "dataclass": Order(1, [Colour.RED, {1}]),
        "dataclass_type": Order,
        "enum": Colour.RED,
        "enum_of_nul": Colour.NUL,
        "int_enum": Level.HIGH,
        "uuid": uuid.UUID(int=7),
        "decimal": decimal.Decimal("12.50"),
        "decimal_nan": decimal.Decimal("NaN"),
        "decimal_signalling": decimal.Decimal("sNaN"),
        "decimal_huge": decimal.Decimal("1E+999999"),
        "datetime": dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "date": dt.date(2024, 2, 29),
        "time": dt.time(12, 30),
        "timedelta": dt.timedelta(days=-1, seconds=3),
        "exception": ValueError("bad\x00news"),
        "exception_type": KeyError,
        "range": range(3),
        "namedtuple": Point(1, 2),
        "ordered_dict": OrderedDict(a=1),
        "user_dict": UserDict(a=1),
        "chain_map": ChainMap({"a": 1}, {"b": 2}),
        "generator": (number for number in range(3)),
        "function": deep,
        "module": enum,
        "complex": 1 + 2j,
        "ellipsis": ...,
        "circular": circle(),
        "circular_through_tuple": circle_through_tuple(),
        "circular_deque": deque([(circle_through_tuple(),)]),
        "tuple_in_tuple": ((1, ("a",)), [(2, [3])]),
        "point_in_point": Point(Point(1, 2), [3]),
        "of_tuples": OfTuples.NESTED,
        "deep_tuples": deep_tuples(5_000),
        "deep": deep(5_000),
        "deep_within_limits": deep(50),
        "raising": Raising(),
        "raising_inside": {"list": [Raising(), Raising()]},
        "no_class": NoClass(),
        "broken_mapping": Broken(),
        "raising_text": Text("kept"),
        "nameless": OfNameless(),
        "many_controls": "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\ufeff",
        "copy_marks": "\\.\n\\N\t\\\r",
        "emoji": "🦊",
        "quotes": "'; DROP TABLE events; --\"",
        "percent": "%s %(x)s %",
        "braces": '{"not": json',
    }


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(categories=["Cs", "Cc", "Lu"]))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.uuids()
    | st.fractions()
    | st.complex_numbers()
    | st.sampled_from([Colour.RED, Level.HIGH, Text])
    # by builds: what a strategy samples from must have a repr
    | st.builds(Raising)
    | st.builds(NoClass)
    | st.builds(Broken)
    | st.builds(Text, st.text())
    | st.builds(Point, st.integers(), st.floats())
    | st.integers(4000, 6000).map(lambda digits: 10**digits)
)
_keys = st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.binary() | st.tuples(st.integers())

#: anything at all
values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(_keys, inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=12,
)


def kind(value: Any) -> str:
    """Return the name of the value's type, for the id of a test, whatever the value thinks of that."""
    return type.__repr__(type(value))[8:-2]
