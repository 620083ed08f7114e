"""Where the database is, and how it is shown."""

from __future__ import annotations

import logging
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.server import PASSWORD, USER, Server

from pawprint_logging import ConfigurationError, PawprintHandler, Tracker
from pawprint_logging._database.session.dsn import CONNECT_TIMEOUT, Dsn


def spellings(server: Server) -> list[str]:
    tail = f"{USER}:{PASSWORD}@127.0.0.1:{server.port}/postgres"
    return [
        f"postgresql://{tail}",
        f"postgres://{tail}",
        f"postgresql+psycopg2://{tail}",
        f"postgresql://{tail}?application_name=shop",
        f"host=127.0.0.1 port={server.port} user={USER} password={PASSWORD} dbname=postgres",
        f"host=127.0.0.1,127.0.0.1 port=1,{server.port} user={USER} password={PASSWORD} dbname=postgres",
        f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1,127.0.0.1:{server.port}/postgres?target_session_attrs=read-write",
    ]


@pytest.mark.parametrize("index", range(7))
def test_every_spelling_of_an_address_connects(server: Server, index: int) -> None:
    with closing(Dsn(spellings(server)[index]).connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('client_encoding')")
        assert cursor.fetchone() == (USER, "UTF8")


def test_the_clients_encoding_is_utf8_even_where_the_address_asks_for_another(server: Server) -> None:
    with closing(Dsn(server.dsn(client_encoding="LATIN1")).connect()) as connection:
        assert connection.encoding == "UTF8"


def test_an_attempt_to_connect_is_bounded_unless_the_address_says_otherwise(server: Server) -> None:
    for db, expected in ((server.dsn(), CONNECT_TIMEOUT), (server.dsn(connect_timeout=3), 3)):
        with closing(Dsn(db).connect()) as connection:
            assert connection.get_dsn_parameters()["connect_timeout"] == str(expected)


@pytest.mark.parametrize("index", range(7))
def test_no_spelling_is_shown_with_its_password(server: Server, index: int) -> None:
    tracker = Tracker(db=spellings(server)[index], table="analytics.events")

    for shown in (repr(tracker), str(tracker), repr(Dsn(spellings(server)[index])), f"{tracker}"):
        assert PASSWORD not in shown
        assert str(server.port) in shown
        assert "postgres" in shown
    assert "analytics.events" in repr(tracker)
    assert tracker.db == spellings(server)[index]


def test_a_password_in_the_query_of_a_uri_is_not_shown() -> None:
    assert "sesame" not in repr(Tracker(db="postgresql://h/d?user=u&password=sesame", table="t"))


def test_an_embedded_address_is_shown_with_its_absolute_directory(tmp_path: Path) -> None:
    assert str(tmp_path / "data") in repr(Tracker(db=f"embedded:{tmp_path}/data", table="t"))


def test_debug_mode_shows_that_there_is_no_database() -> None:
    assert repr(Tracker(table="events")) == "Tracker(db=None, table='events')"


MALFORMED = [
    "",
    "  ",
    "events.db",
    "postgresql://user:sesame@@host/db",
    "postgresql://user:se@same@host/db",
    "postgresql://user:sesame/x@host/db",
    "postgresql://user:1/sesame@host/db",
    "postgresql://user:1/sesame@host",
    "postgresql+psycopg2://user:1/sesame@host/db",
    "postgresql://user:se%ZZsame@host/db",
    "postgresql://user:sesame@host:port/db",
    "postgresql://user:sesame@host:99999/db",
    "postgresql://user:sesame@[::1/db",
    "mysql://user:sesame@host/db",
    "host=localhost password='sesame",
    "host=localhost sesame",
    "postgresql://user:sesame@host/db?no_such_option=1",
    "postgresql://user:sesame\x00@host/db",
    "postgresql://user:sesame\ud800@host/db",
    "embedded:",
    "embedded:  ",
]


@pytest.mark.parametrize("make", [Tracker, PawprintHandler])
@pytest.mark.parametrize("db", MALFORMED, ids=range(len(MALFORMED)))
def test_an_address_that_does_not_parse_is_refused_without_being_printed(
    make: Any, db: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="db") as caught:
        make(db=db, table="events")

    logging.getLogger("shop").error("no", exc_info=caught.value)
    printed = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert "sesame" not in "".join(line for line in printed.splitlines() if "make(db=" not in line)
    if db.strip():
        assert db not in str(caught.value).replace("embedded:DIRECTORY", "").replace("embedded: needs", "").replace(
            "embedded:/", ""
        )
    error: BaseException | None = caught.value
    while error is not None:  # not even what was being handled knows it
        assert "sesame" not in repr(error)
        error = error.__context__


@pytest.mark.parametrize("db", [5, b"postgresql://h/d", ["h"], Path("/d")], ids=repr)
def test_an_address_that_is_no_text_is_refused(db: Any) -> None:
    with pytest.raises(ConfigurationError, match="db must be text"):
        Tracker(db=db, table="events")


def test_an_at_sign_in_a_password_may_be_percent_encoded(server: Server) -> None:
    server.execute("CREATE ROLE odd LOGIN PASSWORD 'a@b/c#d?e'")
    with closing(Dsn(server.dsn(user="odd", password="a@b/c#d?e")).connect()):
        pass
    server.execute("DROP ROLE odd")


def test_an_at_sign_in_a_password_of_a_keyword_string_is_fine() -> None:
    assert Dsn("host=h password=a://b/c@d dbname=d")
