"""Conditions as people write them, on the command line and in a URL: one reader for both."""

from __future__ import annotations

from typing import Any

import click
import pytest

from pawprint_logging import ConfigurationError
from pawprint_logging._console.conditions import parse
from pawprint_logging._database.reading.written import read_conditions
from pawprint_logging.web.address import BadAddressError, Filter


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("metadata__plan=pro", "metadata__plan", "pro"),
        (" event =a=b ", "event", "a=b "),
        ("event=", "event", ""),
        ('event__in=a, b,"c,d"', "event__in", ["a", "b", "c,d"]),
        ("event__not_in=", "event__not_in", []),
        ("user_id__isnull=TRUE", "user_id__isnull", True),
        ("user_id__isnull=no", "user_id__isnull", False),
        ("isnull=x", "isnull", "x"),
    ],
)
def test_a_condition_is_read_alike_everywhere(text: str, name: str, value: Any) -> None:
    assert read_conditions([text]) == {name: value}
    assert parse([text]) == {name: value}
    assert Filter(where=(text,)).conditions(event_field="event") == {name: value}


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["plan"], "written FIELD=VALUE, as in metadata__plan=pro"),
        (["=pro"], "written FIELD=VALUE"),
        (["event__in=a\nb"], "event__in takes values with commas between them"),
        (['event__in="a'], "event__in takes values with commas between them"),
        (["user_id__isnull=perhaps"], "user_id__isnull takes true or false"),
        (["n=1", "n=2"], "n is given twice, but all conditions must hold; for one of several values write n__in=A,B"),
    ],
)
def test_what_cannot_be_read_is_refused_alike_everywhere(texts: list[str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        read_conditions(texts)
    with pytest.raises(click.UsageError, match=f"--where: .*{why}"):
        parse(texts)
    with pytest.raises(BadAddressError, match=why):
        Filter(where=tuple(texts)).conditions(event_field="event")


def test_a_column_that_has_an_argument_s_name_is_asked_for_by_a_modifier() -> None:
    assert parse(["tz=a", "limit=3"]) == {"tz__eq": "a", "limit__eq": "3"}
    with pytest.raises(click.UsageError, match="tz__eq is given twice"):
        parse(["tz=a", "tz__eq=b"])
