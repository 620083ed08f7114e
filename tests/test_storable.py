"""The careful way: a copy that JSON and PostgreSQL accept, whatever it is made from."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support import hostile

from pawprint_logging._capture import storable
from pawprint_logging._capture.encoder import column_text, json_text
from pawprint_logging._capture.guard import guard
from pawprint_logging._capture.storable import Storable, clean, number, stand_in, text_of


def copied(value: Any, **limits: int) -> Any:
    return Storable(**limits).copy(value)


@given(hostile.values)
def test_whatever_is_copied_can_be_written_as_json_and_as_utf8(value: Any) -> None:
    text = json.dumps(copied(value), allow_nan=False, ensure_ascii=False)

    assert "\\u0000" not in text
    assert text.encode()


@given(hostile.values)
def test_a_copy_copies_to_itself(value: Any) -> None:
    once = copied(value)
    assert copied(once) == once


@pytest.mark.parametrize("name", hostile.each())
def test_each_kind_of_hostile_value_has_a_copy(name: str) -> None:
    json.dumps(copied(hostile.each()[name]), allow_nan=False).encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\x00b\ud800c", "a\ufffdb\ufffdc"),
        ({"\x00": {1: [(), {2}]}}, {"\ufffd": {"1": [[], [2]]}}),
        ({None: 1, True: 2, False: 3}, {"null": 1, "true": 2, "false": 3}),
        ([float("nan"), float("inf"), float("-inf")], ["NaN", "Infinity", "-Infinity"]),
        (hostile.Order(1, [hostile.Colour.RED]), {"id": 1, "lines": ["red"]}),
        (hostile.Level.HIGH, 3),
        (hostile.Text("kept"), "kept"),
        (hostile.Raising(), "<Raising>"),
        (hostile.Broken(), "<Broken>"),
        (hostile.OfNameless(), "<object>"),
        (10**5000, hex(10**5000)),
        (hostile.Point(1, 2), [1, 2]),
        ({"when": np.datetime64("2026-01-31T10:00", "ns")}, {"when": "2026-01-31T10:00:00"}),
    ],
    ids=hostile.kind,
)
def test_it_is_copied_as(value: Any, expected: Any) -> None:
    assert copied(value) == expected


def test_a_circle_ends_where_it_closes() -> None:
    assert copied(hostile.circle()) == [1, {"ring": "<list: circular>"}]


def test_the_same_object_twice_is_no_circle() -> None:
    shared = [1]
    assert copied([shared, shared]) == [[1], [1]]


def test_nesting_ends_at_the_limit_with_the_name_of_the_type() -> None:
    text = json.dumps(copied(hostile.deep(5_000)))

    assert text.count("[") == storable.MAX_DEPTH
    assert "<list: nested too deeply>" in text


def test_nesting_within_the_limit_is_kept() -> None:
    assert copied(hostile.deep(50)) == hostile.deep(50)


def test_a_value_past_the_size_limit_gives_way_to_its_type() -> None:
    assert copied(["a" * 60, "b" * 60, 1], max_characters=100) == ["a" * 60, "<str: the event is over its size limit>"]


def test_containers_of_nothing_count_towards_the_size() -> None:
    assert len(copied([[]] * 1000, max_characters=100)) < 100


def test_a_dict_that_grows_meanwhile_does_not_matter() -> None:
    data: dict[Any, Any] = {}

    class Growing:
        def __str__(self) -> str:
            data[len(data)] = "more"
            return "growing"

    data["a"] = Growing()

    assert copied(data)["a"] == "growing"


def test_text_that_is_too_long_is_named_with_its_length() -> None:
    size = storable.MAX_CHARACTERS + 1
    assert clean("x" * size) == f"<str of {size} characters, over the limit of {storable.MAX_CHARACTERS}>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("12.50"), 12.5),
        (Decimal("1E+3"), 1000),
        (Decimal("0.1"), 0.1),
        (Decimal("0.10000000000000000001"), "0.10000000000000000001"),
        (Decimal("1E+999999"), "1E+999999"),
        (Decimal("NaN"), "NaN"),
        (Decimal("-Infinity"), "-Infinity"),
        (2**200, 2**200),
        (True, 1),
    ],
)
def test_a_number_stays_a_number_where_nothing_is_lost(value: Any, expected: Any) -> None:
    assert number(value) == expected
    assert type(number(value)) is type(expected)


def test_an_integer_past_pythons_own_limit_of_digits_is_hexadecimal_text() -> None:
    limit = 10 ** (sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 4300)
    assert number(limit) == hex(limit)


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="this Python has no such limit")
@pytest.mark.parametrize(("limit", "digits"), [(640, 640), (5000, 5000), (2**31 - 1, None), (0, None)])
def test_the_limit_of_digits_may_be_another(limit: int, digits: int | None) -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        for sign in (1, -1):
            short, long = (sign * (10 ** (digits or 6000) - less) for less in (1, 0))
            stored = long if digits is None else hex(long)
            # the quick ways fail at a key that is a tuple
            written = {"short": short, "long": long, "name": "x", "odd": {(): 1}}
            assert json.loads(json_text(written)) == {**written, "long": stored, "odd": {"[]": 1}}
            assert column_text(short) == str(short)
            assert column_text(long) == str(stored)
    finally:
        sys.set_int_max_str_digits(before)


def test_a_stand_in_names_the_type_and_nothing_more() -> None:
    assert stand_in(Secret()) == "<Secret>"


def test_text_of_a_value_that_raises_is_its_type() -> None:
    assert text_of(hostile.Raising()) == "<Raising>"


def test_while_a_value_is_asked_for_its_text_the_thread_makes_no_events() -> None:
    class Asking:
        def __str__(self) -> str:
            return f"busy: {guard.busy}"

    assert text_of(Asking()) == "busy: True"
    assert not guard.busy


class Secret:
    def __str__(self) -> str:
        raise ValueError("the secret")
