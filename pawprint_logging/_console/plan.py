"""Compare a project's plan, its declared event classes, with what is in the table."""

from __future__ import annotations

import importlib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._capture.declared import FieldType, declared, declared_fields
from ..errors import ConfigurationError
from ..tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd

Plan = Mapping[str, Mapping[str, FieldType]]
Seen = dict[str, dict[str, tuple[str, float]]]
_TYPES: Mapping[type, frozenset[str]] = {
    bool: frozenset({"boolean"}),
    int: frozenset({"integer"}),
    float: frozenset({"integer", "number"}),
    str: frozenset({"text"}),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
}


def declared_by(module: str) -> Plan:
    """Import a module; return all events that are then declared, with their fields.

    Raises:
        ConfigurationError: there is no such module, it cannot be imported, or no event is declared.
    """
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--plan {module}: there is no module {error.name}; run this where it can be imported"
        ) from None
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        raise ConfigurationError(
            f"--plan {module}: the module cannot be imported: {type(error).__name__}: {error}"
        ) from error
    plan = {name: declared_fields(cls) for name, cls in declared().items()}
    if not plan:
        raise ConfigurationError(f"--plan {module}: it declares no event; make its classes subclasses of Event")
    return plan


def differences(frame: pd.DataFrame, plan: Plan, tracker: Tracker) -> list[str]:
    """Return each difference between table and plan, in one sentence."""
    seen = _seen(frame, plan, tracker)
    return [*_undeclared(seen, plan), *_lacking(seen, plan)]


def _seen(frame: pd.DataFrame, plan: Plan, tracker: Tracker) -> Seen:
    """Return each event's fields, with their types and the share of the events that have them."""
    begin = f"{tracker.json_field}__"
    seen: Seen = {}
    for event, field, kind, share in zip(frame["event"], frame["field"], frame["type"], frame["share"], strict=True):
        fields = seen.setdefault(str(event), {})
        if isinstance(field, str) and field.startswith(begin):
            path = field.removeprefix(begin)
            name = _field_of(path, plan.get(str(event), {}))
            # of an object, only the share of each key is known, and other events may have other keys or none
            fields[name] = (str(kind), float(share)) if name == path and name not in fields else ("object", 1.0)
        elif isinstance(field, str) and field in plan.get(str(event), {}):
            fields[field] = ("", float(share))
    return seen


def _field_of(path: str, declaration: Mapping[str, FieldType]) -> str:
    """Return the field to which a path belongs: a declared one, whose name may have a double underscore, or its key."""
    steps = path.split("__")
    names = ["__".join(steps[:number]) for number in range(len(steps), 0, -1)]
    return next((name for name in names if name in declaration), steps[0])


def _undeclared(seen: Seen, plan: Plan) -> list[str]:
    sentences = []
    for event, fields in seen.items():
        if event not in plan:
            sentences.append(f"{event}: is in the table, and not declared")
            continue
        for name, (kind, _) in fields.items():
            if name not in plan[event]:
                sentences.append(f"{event}.{name}: is in the table, and not declared")
            elif (
                (wanted := _kinds(plan[event][name].type)) is not None and kind and not set(kind.split(" | ")) <= wanted
            ):
                sentences.append(f"{event}.{name}: is {kind}, and declared as {' or '.join(sorted(wanted))}")
    return sentences


def _lacking(seen: Seen, plan: Plan) -> list[str]:
    sentences = []
    for event, declaration in plan.items():
        if event not in seen:
            sentences.append(f"{event}: is declared, and not in the table")
            continue
        for name, declared_field in declaration.items():
            share = seen[event].get(name, ("", 0.0))[1]
            if declared_field.is_required and share < 1 and not _allows_none(declared_field.type):
                sentences.append(f"{event}.{name}: must be given, and {100 * (1 - share):.3g}% of the events lack it")
    return sentences


def _allows_none(declared_type: Any) -> bool:
    return declared_type is Any or type(None) in typing.get_args(declared_type)


def _kinds(declared_type: Any) -> frozenset[str] | None:
    """Return the JSON types that a declared type allows; None for any."""
    origin = typing.get_origin(declared_type) or declared_type
    if origin in (typing.Union, types.UnionType):
        found = [_kinds(each) for each in typing.get_args(declared_type) if each is not type(None)]
        return None if None in found else frozenset().union(*(each for each in found if each))
    return _TYPES.get(origin) if isinstance(origin, type) else None
