"""What counts as a time stamp."""

from __future__ import annotations

import datetime as dt
import decimal
import email.utils
import fractions
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawprint_logging._capture import moment

UTC = dt.timezone.utc
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NOON = dt.datetime(2024, 2, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2024, 2, 29, 12, 0),  # noqa: DTZ001 - naive is what is tested
        dt.datetime(2024, 2, 29, 17, 30, tzinfo=EAST),
        NOON.timestamp(),
        int(NOON.timestamp()),
        "2024-02-29T12:00:00Z",
        "2024-02-29t12:00:00z",
        "2024-02-29 12:00:00",
        "2024-02-29 12:00",
        "2024-02-29 12:00:00 UTC",
        "2024-02-29T12:00:00.000000+00:00",
        "2024-02-29T17:30:00,000+0530",
        "2024-02-29T07:00:00.0-05",
        "  2024-02-29T12:00:00Z\n",
        "2024-02-29 12:00:00 GMT",
        "20240229T173000+0530",
        "20240229T1200Z",
        "20240229T120000.000",
        "2024/02/29 12:00:00",
        "2024/02/29 17:30 +05:30",
        "Thu, 29 Feb 2024 17:30:00 +0530",
        "Thu, 29 Feb 2024 17:30:00 +0530 (IST)",
        "Thu, 29 Feb 2024 12:00:00 GMT",
        "29/Feb/2024:07:00:00 -0500",
        "29-Feb-2024 12:00:00.000",
    ],
)
def test_the_same_moment_in_any_form_is_read_in_utc(value: Any) -> None:
    parsed = moment.parse(value)

    assert parsed == NOON
    assert parsed is not None
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        np.int64(NOON.timestamp()),
        np.float64(NOON.timestamp()),
        decimal.Decimal(int(NOON.timestamp())),
        fractions.Fraction(int(NOON.timestamp())),
        *[np.datetime64("2024-02-29T12:00").astype(f"datetime64[{unit}]") for unit in ("h", "m", "s", "us", "ns")],
    ],
    ids=repr,
)
def test_numbers_and_times_of_other_types_are_read_too(value: Any) -> None:
    assert moment.parse(value) == moment.of_record(value, 0.0) == NOON


def test_a_short_float_is_read_with_what_precision_it_has() -> None:
    assert moment.parse(np.float32(2**30)) == dt.datetime.fromtimestamp(2**30, UTC)


@pytest.mark.parametrize(
    "value",
    [
        int(NOON.timestamp()),
        np.int64(NOON.timestamp()),
        np.datetime64("2024-02-29T12:00"),
        NOON.replace(tzinfo=None),
        NOON.astimezone(EAST),
        "2024-02-29T12:00:00Z",
        "Thu, 29 Feb 2024 17:30:00 +0530",
    ],
    ids=repr,
)
def test_a_key_of_structlogs_may_be_any_time(value: Any) -> None:
    assert moment.of_structlog(value) == NOON


def test_text_among_structlogs_keys_needs_a_zone_since_a_stamper_may_have_written_it() -> None:
    assert moment.of_structlog("2024-02-29T12:00:00") is None
    assert moment.of_structlog("2024-02-29") is None
    assert moment.of_structlog(NOON.date()) == moment.parse("2024-02-29")


def test_a_date_is_its_midnight() -> None:
    midnight = dt.datetime(2024, 2, 29, tzinfo=UTC)
    assert moment.parse(dt.date(2024, 2, 29)) == midnight
    assert moment.parse("2024-02-29") == midnight


@pytest.mark.parametrize("day", range(1, 29))
@pytest.mark.parametrize("month", range(1, 13))
def test_a_date_of_rfc_2822_is_read_as_the_standard_library_reads_it(month: int, day: int) -> None:
    when = dt.datetime(2026, month, day, 9, 8, 7, tzinfo=EAST)

    assert moment.parse(email.utils.format_datetime(when)) == when
    assert moment.parse(f"{when:%d/%b/%Y:%H:%M:%S %z}") == moment.parse(f"{when:%Y%m%dT%H%M%S%z}") == when


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"2026-01-01 10:00{zone}", True) for zone in (" EET", " Europe/Rome", " GMT+2", " UTC-2", " AM -08", " -8")),
        *((f"2026-01-01 10:00{zone}", False) for zone in ("", " UTC", " GMT", "z", " +00", "-0000", " AM", " BC")),
        *((f"Thu Jan  1 10:00:00 2026{zone}", bool(zone)) for zone in ("", " +0200", " -0200", " MART")),
        *((f"2026-001T10{zone}", bool(zone)) for zone in ("", "+02", "-02", "-02:30")),
        *((text, False) for text in ("2026-01-01", "10:00 2026-01-01", "01-Jan-2026 10:00", "J2451187", "now")),
        *((text, True) for text in ("today EET", "tomorrow America/New_York")),
        *((f"2026-01-01 {text}-05", True) for text in ("100000", "10:0", "10:00:00,", "10:00:00_", "10:00 UCT")),
        *((f"2026-01-01 10:00 {zone}", False) for zone in ("Etc/UTC", "UCT", "Universal", "Greenwich", "Etc/GMT0")),
        *((text, False) for text in ("10:00 2026-01-02", "10:00:00 20260102", "Jan 2026-01-02 100000", "1 260102")),
        *((text, False) for text in ("", "text", "1", "infinity", "January 5, 2026", "20000-01-01 10:00:00+00:00")),
    ],
)  # fmt: skip
def test_an_offset_or_a_zone_is_found_in_any_text(text: str, expected: bool) -> None:
    assert moment.names_zone(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("12.11.2025 10:00", "1/2/2026", "01-02-26", "1 2 2026", "Mon 01_02_2026")),
        *((text, True) for text in ("10:00:00.5 01/02/2026", "01.02.2026T10:00", "1/2/2026:10:00:00 +0200")),
        *((text, True) for text in ("now", "now()", "TODAY", "tomorrow 10:00", " yesterday EET")),
        *((text, False) for text in ("2026.01.02", "2026/1/2 9:30", "2026-002", "20260102", "260102 100000")),
        *((text, False) for text in ("10:00:00.5 2026-01-02", "Mon 2026 01 02", "J2451187", "2026-01-02T10:00")),
        *((text, False) for text in ("1 Feb 2026", "Sept 1, 26", "01/Jan/2026:10:00:00 +0200", "jan-02-26 10:00")),
        *((text, False) for text in ("epoch", "infinity", "-infinity", "never", "", "10:00")),
    ],
)
def test_a_date_is_a_guess_if_neither_year_nor_month_can_be_told_or_it_depends_on_today(
    text: str, expected: bool
) -> None:
    assert moment.is_guess(text) is expected


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


STAMPS = ["%Y/%m/%d %H:%M", "%d %b %Y %H:%M", "%Y%m%dT%H%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
#: the last is in the second of two hours of the same name, when the clocks go back
NOWS = [
    NOON,
    NOON.replace(minute=59, second=59, microsecond=999_999),
    dt.datetime(2024, 11, 3, 5, 30, 7, tzinfo=UTC),
    dt.datetime(2024, 11, 3, 6, 30, 7, tzinfo=UTC),
]


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize("now", NOWS, ids=str)
@pytest.mark.parametrize("form", STAMPS)
def test_a_records_own_time_in_local_time_is_not_trusted_and_every_other_is(form: str, now: dt.datetime) -> None:
    local = now.astimezone()
    for delay in (0.0, 1.5):  # the record is made after its stamp, perhaps in the next minute
        assert moment.of_record(local.strftime(form), now.timestamp() + delay) is None
    cut = now.replace(second=0 if "%S" not in form else now.second, microsecond=0)
    assert moment.of_record(f"{now.strftime(form)}Z", now.timestamp()) == cut
    assert moment.of_record(f"{local.strftime(form)} {local:%z}", now.timestamp()) == cut
    for other in (now, now - dt.timedelta(days=1), local - dt.timedelta(minutes=2), local + dt.timedelta(minutes=2)):
        text = other.strftime(form)
        assert moment.of_record(text, now.timestamp()) == moment.parse(text)


@pytest.mark.usefixtures("new_york")
def test_the_day_of_a_record_is_its_midnight() -> None:
    assert moment.of_record(f"{NOON:%Y-%m-%d}", NOON.timestamp()) == moment.parse(NOON.date())


@pytest.mark.parametrize("digits", range(1, 10))
def test_a_fraction_may_have_one_to_nine_digits(digits: int) -> None:
    parsed = moment.parse(f"2024-02-29T12:00:00.{'123456789'[:digits]}Z")

    assert parsed is not None
    assert parsed.microsecond == int("123456789"[: min(digits, 6)].ljust(6, "0"))


class Hostile(dt.datetime):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __ne__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


class Odd(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "yesterday",
        "2024-13-01",
        "2024-02-30 10:00",
        "12:00",
        "2024-02-29T12:00:00+99:00",
        "30/Feb/2024:12:00:00 +0000",
        "29 Feb 2024 12:00:00 (IST)",
        "29 Feb 2024 12:00:00 EST",
        "2024/02/29",
        True,
        np.bool_(True),
        np.float64("nan"),
        decimal.Decimal("sNaN"),
        decimal.Decimal("1E+999999"),
        np.datetime64("NaT", "us"),
        np.datetime64("99999-01-01"),
        np.datetime64(2**62, "s"),  # in microseconds numpy makes 1970 of it
        np.timedelta64(5, "s"),
        float("nan"),
        float("inf"),
        1e300,
        10**5000,
        b"2024-02-29",
        [],
        object(),
        Hostile(2024, 1, 1),
        dt.datetime(2024, 1, 1, tzinfo=Odd()),
        # in UTC they are outside of what Python and ISO 8601 can say
        dt.datetime(1, 1, 1, tzinfo=EAST),
        dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_names_no_moment_is_none_and_raises_nothing(value: Any) -> None:
    assert moment.parse(value) is None


@given(
    st.datetimes(
        timezones=st.timezones() | st.none(),
        min_value=dt.datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis asks for naive bounds
        max_value=dt.datetime(9998, 1, 1),  # noqa: DTZ001
    )
)
def test_isoformat_of_any_datetime_is_read_as_that_moment(value: dt.datetime) -> None:
    offset = value.utcoffset()
    if (
        offset is None or offset.seconds % 60 == 0
    ):  # local mean times of before 1900 have seconds, which ISO 8601 has not
        assert moment.parse(value.isoformat()) == moment.parse(value)
