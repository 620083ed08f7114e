"""examples/django_shop does what its README says."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from support.example import Example


def test_each_request_is_a_row_with_the_user_who_is_logged_in(example: Example) -> None:
    migrate, serve, *requests, read = example.commands
    example.run(migrate)
    with example.running(serve, "Starting development server", stop=signal.SIGINT):
        for request in requests:
            example.ask(request)

    rows = example.rows()
    requests_of = [metadata.pop("request_id") for _, _, metadata in rows]
    assert rows == [
        (None, "product_viewed", {"product": "tea"}),
        ("1", "signup", {"plan": "pro"}),
        ("1", "product_viewed", {"product": "cup"}),
        ("1", "purchase", {"product": "cup", "quantity": 2}),
    ]
    assert len(set(requests_of)) == 4
    assert example.shows_what_it_says(read)


def test_what_one_request_binds_is_not_seen_by_another(example: Example) -> None:
    migrate, serve, _, signup, view, *_ = example.commands
    example.run(migrate)
    with example.running(serve, "Starting development server", stop=signal.SIGINT):
        example.ask(signup)
        stranger = f"curl http://127.0.0.1:{example.port}/products/pot"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(example.ask, [view, stranger] * 50))

    viewed = [(user, metadata["product"]) for user, event, metadata in example.rows() if event == "product_viewed"]
    assert sorted(viewed, key=str) == [("1", "cup")] * 50 + [(None, "pot")] * 50


def test_the_settings_pass_djangos_own_checks(example: Example) -> None:
    assert example.run("python manage.py check") == ["System check identified no issues (0 silenced)."]


def test_a_mistake_in_the_settings_is_an_error_of_check(example: Example) -> None:
    settings = example.folder / "shop" / "settings.py"
    settings.write_text(settings.read_text("utf-8").replace('"CREATE_TABLE"', '"CREAT_TABLE"'), "utf-8")
    said = "\n".join(example.run("python manage.py check || true"))
    assert "(pawprint.E001) PAWPRINT: there is no option 'CREAT_TABLE'; did you mean 'CREATE_TABLE'?" in said


def test_a_root_logger_above_info_is_a_warning_of_check(example: Example) -> None:
    settings = example.folder / "shop" / "settings.py"
    settings.write_text(settings.read_text("utf-8").replace('"level": "INFO"', '"level": "WARNING"'), "utf-8")
    said = "\n".join(example.run("python manage.py check"))
    assert "(pawprint.W001) the root logger is at WARNING" in said
