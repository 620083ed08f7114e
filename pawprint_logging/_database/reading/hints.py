"""Why an answer may be empty: the likely mistakes in the question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

from ..._nearest import nearest
from ...errors import ConfigurationError
from ..session.connection import Session
from ..table.schema import Table
from .catalogue import Catalogue, look
from .conditions import JSON_NUMBER
from .query import Source, Sql, distinct_of
from .reader import BEGIN_READ, source_of

#: JSON types of numbers and bools
_NUMBERS = frozenset({"integer", "number", "boolean"})
#: most events to list when none is similar to the requested one
_MOST_NAMES = 5


class Hint(NamedTuple):
    """A likely mistake.

    Args:
        kind: no such event, no event with the path, or a path of numbers or bools compared with text.
        asked: the event or the path that the user asked for.
        nearest: what the user may have meant, the likeliest first.
        text: the hint as a sentence, without a full stop.
    """

    kind: Literal["event", "path", "type"]
    asked: str
    nearest: tuple[str, ...]
    text: str


def hints(
    session: Session,
    table: Table,
    conditions: Mapping[str, Any],
    *,
    fields: Iterable[str] = (),
    events: Iterable[str] = (),
    more: Iterable[Mapping[str, Any]] = (),
) -> list[Hint]:
    """Return the likely mistakes in a question whose answer is empty; an empty list if there are none.

    Args:
        session: a session for this call alone.
        table: the table of the question.
        conditions: the question's conditions.
        fields: the fields that were requested, and the one that the answer was split by.
        events: names of events outside the conditions, such as the steps of a funnel.
        more: conditions of parts of the question, such as one step.

    Raises:
        psycopg2.Error: the database could not be reached, or there is no such table.
    """
    with session.transaction(BEGIN_READ) as cursor:
        source = source_of(cursor, table)
        found = look(cursor, source, table, Sql(""))
        every = [conditions, *more]
        asked = [*(name for each in every for name in _names(source, table, each)), *events]
        names = {name for name in asked if not _occurs(cursor, source, table, found, name)}
    hinted = [_event_hint(found, name) for name in dict.fromkeys(asked) if name in names]
    for name in fields:
        hinted += _path_hints(source, found, name)
    for name, value in (item for each in every for item in each.items()):
        hinted += _path_hints(source, found, name, value, is_condition=True)
    return list(dict.fromkeys(hinted))


def _names(source: Source, table: Table, conditions: Mapping[str, Any]) -> list[str]:
    """Return the names of events in the conditions."""
    names: list[str] = []
    for name, value in conditions.items():
        try:
            field, modifier = source.condition(name)
        except ConfigurationError:
            continue
        if field.column == table.fields.event and field.path is None and modifier in (None, "eq", "in"):
            names += [each for each in ([value] if modifier != "in" else value) if isinstance(each, str)]
    return names


def _occurs(cursor: Any, source: Source, table: Table, found: Catalogue, name: str) -> bool:
    """Return whether an event has this name; if only a sample was read, query the table."""
    if any(each.event == name for each in found.entries):
        return True
    if not found.is_sample or table.fields.event not in source.columns:
        return False
    field = source.field(table.fields.event)
    cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {source.sql} WHERE {field.sql.text}::text = %s)", (name,))
    return bool(cursor.fetchone()[0])


def _event_hint(found: Catalogue, name: str) -> Hint:
    known = list(dict.fromkeys(each.event for each in found.entries if each.event is not None))
    likely = tuple(nearest(name, known, 3))
    if likely:
        return Hint("event", name, likely, f"no event {name!r}; did you mean {' or '.join(map(repr, likely))}?")
    if not known:
        return Hint("event", name, (), f"no event {name!r}; the table is empty")
    most = ", ".join(repr(each) for each in known[:_MOST_NAMES])
    return Hint(
        "event", name, (), f"no event {name!r}; known events: {most}{', …' if len(known) > _MOST_NAMES else ''}"
    )


def _path_hints(
    source: Source, found: Catalogue, name: str, value: Any = None, *, is_condition: bool = False
) -> list[Hint]:
    """Return a hint for a path that no event has, or for text compared with a path of numbers or bools."""
    try:
        inner = distinct_of(source, name)
        field, modifier = source.condition(name) if is_condition else (source.field(inner or name), None)
    except ConfigurationError:
        return []
    if not field.path:
        return []
    path = "__".join((field.column, *field.path))
    having = [each for each in found.entries if each.path[: len(field.path)] == field.path]
    # the catalogue does not look into arrays, nor into objects with too many keys
    prefixes = [field.path[:depth] for depth in range(1, len(field.path))]
    inside = [
        each
        for each in found.entries
        if each.path in prefixes
        and ("array" in each.types or ("object" in each.types and not _has_keys(found, each.path)))
    ]
    if not having and not inside and modifier != "isnull" and not (is_condition and value is None):
        # compare the steps alone: the common prefix would make all paths similar
        known = dict.fromkeys("__".join(each.path) for each in found.entries if each.path)
        likely = tuple(f"{field.column}__{each}" for each in nearest("__".join(field.path), known, 3))
        what = "no event has" if not found.is_sample else "no event of a sample has"
        meant = f"; did you mean {' or '.join(likely)}?" if likely else ""
        return [Hint("path", path, likely, f"{what} {path}{meant}")]
    types = {kind for each in having if each.path == field.path for kind in each.types}
    texts = [value] if modifier in (None, "eq", "startswith", "gt", "gte", "lt", "lte") else []
    texts = list(value) if modifier == "in" and not isinstance(value, str) else texts
    texts = [each for each in texts if isinstance(each, str) and not _is_among(each, types)]
    if is_condition and texts and types and not types - _NUMBERS:
        kind = "true or false" if types == {"boolean"} else "numbers"
        return [Hint("type", path, (), f"{path} holds {kind}, and is compared with text")]
    return []


def _is_among(text: str, types: AbstractSet[str]) -> bool:
    """Return whether text is written like a JSON number or bool, and values of these types include such."""
    if text in ("true", "false"):
        return "boolean" in types
    return JSON_NUMBER.fullmatch(text) is not None and types != {"boolean"}


def _has_keys(found: Catalogue, path: tuple[str, ...]) -> bool:
    return any(len(each.path) > len(path) and each.path[: len(path)] == path for each in found.entries)
