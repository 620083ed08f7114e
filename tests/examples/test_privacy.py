"""examples/privacy does what its README says."""

from __future__ import annotations

from support.example import Example


def test_a_user_is_stored_under_a_pseudonym_and_erased(example: Example) -> None:
    (run,) = example.commands
    assert example.run(run) == example.blocks("text")[0]

    ((user, event, metadata),) = example.rows()
    assert (len(user), event, metadata) == (32, "signup", {"plan": "free"})
    assert [row[0] for row in example.rows("user_id", table="events__sessions")] == [user]


def test_another_key_gives_other_pseudonyms(example: Example) -> None:
    (run,) = example.commands
    first = example.run(run)
    second = example.run(run.replace("SHOP_USER_KEY=8", "SHOP_USER_KEY=9"))
    assert first[:3] == example.blocks("text")[0][:3]
    assert not {line[:50] for line in first[:3]} & {line[:50] for line in second[1:4]}


def test_without_a_key_it_says_so(example: Example) -> None:
    assert "KeyError: 'SHOP_USER_KEY'" in "".join(example.run("python app.py 2>&1 || true"))
