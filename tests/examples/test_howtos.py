"""The how-to pages of frameworks, followed to the letter with the real server or worker, which SIGTERM ends.

Each is as good as in a fresh environment: what the page installs is what the environment of these tests is made of.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.example import PATIENCE, HowTo, until


@pytest.fixture
def howto(request: pytest.FixtureRequest, db: str, tmp_path: Path) -> HowTo:
    """The page that the test is named after: `test_flask` is about `docs/howto/flask.rst`."""
    return HowTo(request.function.__name__.removeprefix("test_").partition("__")[0], tmp_path, db)


def assert_is_installed(install: str) -> None:
    program, command, *packages = shlex.split(install)
    assert (program, command) == ("pip", "install")
    for package in packages:
        requirement = Requirement(package)
        assert metadata.version(requirement.name)
        assert requirement.extras <= set(metadata.metadata(requirement.name).get_all("Provides-Extra", [])), package


def test_django(howto: HowTo) -> None:
    assert_is_installed(howto.install)
    (start,) = howto.start
    howto.run(start)
    assert howto.write_files() == ["shop/settings.py", "shop/urls.py", "shop/views.py"]
    (migrate, serve), requests, (read,) = howto.commands
    howto.run(migrate)
    with howto.running(serve, "Booting worker"):
        for request in requests:
            howto.ask(request)
    assert howto.shows(read, howto.shown[0])


def test_celery(howto: HowTo) -> None:
    assert_is_installed(howto.install)
    assert howto.write_files() == ["order.py", "shop.py"]
    (work,), (order,), (read,) = howto.commands
    with howto.running(work, "ready."):
        assert howto.run(order) == ["10 orders sent"]
        said = howto.folder / "output"
        until(lambda: said.read_text("utf-8").count("mail sent") == 10)
    assert howto.shows(read, howto.shown[0])


def test_celery__with_tasks_that_are_running_when_it_is_stopped(howto: HowTo) -> None:
    howto.write_files()
    (work,), (order,), _ = howto.commands
    said = howto.folder / "output"
    with howto.running(work, "ready."):
        howto.run(order)
        until(lambda: "shipping" in said.read_text("utf-8"))
    # a task that logged anything has its row; the others are with the broker
    shipped = said.read_text("utf-8").count("shipped")
    assert len(howto.rows()) == shipped + said.read_text("utf-8").count("mail sent") > 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_fastapi(howto: HowTo, stop: signal.Signals) -> None:
    assert_is_installed(howto.install)
    assert howto.write_files() == ["logging.json", "shop.py"]
    (serve,), requests, (read,) = howto.commands
    with howto.running(serve, "Uvicorn running", stop=stop):
        for request in requests:
            howto.ask(request)
    assert howto.shows(read, howto.shown[0])


def test_flask(howto: HowTo) -> None:
    assert_is_installed(howto.install)
    assert howto.write_files() == ["shop.py"]
    (serve,), requests, (read,) = howto.commands
    with howto.running(serve, "Booting worker"):
        for request in requests:
            howto.ask(request)
    assert howto.shows(read, howto.shown[0])


def test_other_loggers(howto: HowTo) -> None:
    assert_is_installed(howto.install)
    assert howto.write_files() == ["access_log.py", "shop.py", "tea.py"]
    (uvicorn,), (request,), (read,), (gunicorn,), (other,), (read_other,) = howto.commands
    with howto.running(uvicorn, "Uvicorn running"):
        howto.ask(request)
    assert howto.shows(read, howto.shown[0])
    with howto.running(gunicorn, "Booting worker"):
        howto.ask(other)
    assert howto.shows(read_other, howto.shown[1])
    # and what must not be stored is not
    stored = "".join(str(row) for row in howto.rows("requests::text", table="requests"))
    assert not [secret for secret in ("token", "secret", "Basic", "127.0.0.1", "urllib") if secret in stored]


def test_queue_handler(howto: HowTo) -> None:
    assert_is_installed(howto.install)
    lines = [line for block in howto.blocks("python") for line in block]
    (howto.folder / "app.py").write_text("\n".join(lines), "utf-8")
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=howto.folder, check=True, timeout=PATIENCE, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.splitlines() == [line for block in howto.shown for line in block]
    assert [event for (event,) in howto.rows("event")] == ["purchase", "before", "after"]
