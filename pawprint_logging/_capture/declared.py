"""The registry of event classes: the name of each class's events, and how to read the fields of an instance.

`Event` and `register_event` add classes here; capture looks up values, and the catalogue looks up fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from .storable import field_names, fields_of, readable

#: returns the name and the fields of an instance
Reader = Callable[[Any], "tuple[str, dict[str, Any]]"]

#: the types of nearly all marks and messages; none of them is ever an event
_PLAIN = frozenset({str, bool, int, float, type(None), dict, list, tuple})


#: how many calls of str() in a row keep the event with its text; each QueueHandler on the way needs two
HANDED_ON = 6


class EventText(str):  # noqa: SLOT000 - it carries the event
    """The text of an event, which still carries the event after `logging` has made a message of it.

    `QueueHandler.prepare` and `SocketHandler.makePickle` replace a record's message by its text and offer no hook, so
    the text itself carries the event. It ignores % arguments. Text that is appended, such as a traceback, does not
    detach the event.
    """

    event: Any
    left: int

    @classmethod
    def of(cls, text: str, event: Any, left: int = HANDED_ON) -> EventText:
        """Return the text of an event; `left` calls of str() in a row keep the event with it."""
        made = cls(text)
        made.event = event
        made.left = left
        return made

    def __str__(self) -> str:
        text = str.__str__(self)
        # must end in a plain str: encoders that know only str, such as msgspec's, call str() until they get one
        return EventText.of(text, self.event, self.left - 1) if self.left else text

    def __mod__(self, _: object) -> EventText:
        return self

    def __add__(self, other: str) -> EventText:
        return EventText.of(str.__add__(self, other), self.event)

    def __reduce__(self) -> tuple[Any, ...]:
        return EventText.of, (str.__str__(self), self.event)


class FieldType(NamedTuple):
    """A field as its class declares it: its type, resolved if possible, and whether it is required."""

    type: Any
    is_required: bool


@dataclass(frozen=True)
class _Declaration:
    #: None if the instances carry their own names
    name: str | None
    read: Reader
    fields: Callable[[type], dict[str, bool]]


_declarations: dict[type, _Declaration] = {}
_names: dict[str, type] = {}


def declare(cls: type, name: str, read: Reader, fields: Callable[[type], dict[str, bool]]) -> None:
    """Register a class.

    Args:
        cls: the class; running its class statement again replaces it.
        name: the name of its events.
        read: returns the name and the fields of an instance.
        fields: returns the names of the fields, and whether each is required.

    Raises:
        TypeError: the name is not text, or another class has it.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f'{cls.__name__}: the name of an event must be text, as in name="purchase"; not {name!r}')
    other = _names.get(name, cls)
    # a reloaded module, or a notebook cell, defines the same class again
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(
            f"{cls.__name__}: {other.__module__}.{other.__qualname__} is called {name!r} already; "
            "each class of events needs a name of its own"
        )
    name = plain_name(name)
    _declarations[cls] = _Declaration(name, read, fields)
    _names[name] = cls


def plain_name(name: Any) -> Any:
    """Return a name as plain text: `str()` of a member of a ``class Names(str, Enum)`` would be ``Names.MEMBER``."""
    return str.__str__(name) if isinstance(name, str) else name


def read_without_name(cls: type, read: Reader) -> None:
    """Register a class whose instances carry their own names."""
    _declarations[cls] = _Declaration(None, read, lambda _: {})


def declared() -> dict[str, type]:
    """Return the declared classes by the names of their events."""
    return dict(_names)


def declared_fields(cls: type) -> dict[str, FieldType]:
    """Return the fields of a declared class, in order; a type that cannot be resolved stays text.

    Raises:
        KeyError: the class is not declared.
    """
    fields = _declarations[cls].fields(cls)
    try:
        types = get_type_hints(cls)
    except Exception:  # a name that only a type checker imports
        types = {}
        for base in reversed(cls.__mro__):
            types |= inspect.get_annotations(base)
    return {name: FieldType(types.get(name, Any), is_required) for name, is_required in fields.items()}


def event_of(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the name and fields of an event, or None for any other value; the caller may change the dict."""
    cls = type(value)
    if cls in _PLAIN:
        return None
    for base in type.mro(cls) if cls is not type else ():
        if (declaration := _declarations.get(base)) is not None:
            try:
                return declaration.read(value)
            except Exception:
                if declaration.name is None:
                    raise
                return declaration.name, _readable_fields(value)
    return None


def _readable_fields(value: Any) -> dict[str, Any]:
    """Return the fields of an instance of which one cannot be read."""
    cls: Any = type(value)
    if not _is_model(cls):
        return fields_of(value, field_names(cls) or ())
    # pydantic's serializers may hide what the attributes show, so they are asked for one field at a time
    names = [*cls.model_fields, *cls.__pydantic_decorators__.computed_fields, *(value.model_extra or ())]
    return readable(names, lambda name: dict(value.model_dump(include={name})))


def is_event(value: Any) -> bool:
    """Return whether a value's class is declared; unlike `event_of`, this runs no code of the class."""
    cls = type(value)
    return cls not in _PLAIN and cls is not type and not _declarations.keys().isdisjoint(type.mro(cls))


def reader_of(cls: type, name: str) -> tuple[Reader, Callable[[type], dict[str, bool]]] | None:
    """Return functions that read a class's instances and find its fields; None for a class of an unknown kind."""
    way = _way_of(cls)
    if way is None:
        return None
    read, fields = way
    return lambda value: (name, read(value)), fields


_Way = tuple[Callable[[Any], dict[str, Any]], Callable[[type], dict[str, bool]]]


def _is_model(cls: Any) -> bool:
    return "pydantic" in sys.modules and hasattr(cls, "model_fields") and hasattr(cls, "model_dump")


def _way_of(cls: Any) -> _Way | None:
    if _is_model(cls):
        return (
            lambda value: dict(value.model_dump()),
            lambda of: {name: bool(field.is_required()) for name, field in vars(of)["__pydantic_fields__"].items()},
        )
    if hasattr(cls, "__struct_fields__"):  # msgspec
        return lambda value: fields_of(value, value.__struct_fields__), _fields_of_struct
    if hasattr(cls, "__attrs_attrs__"):
        return (
            lambda value: {field.name: getattr(value, field.name) for field in value.__attrs_attrs__},
            lambda of: {field.name: field.default is _nothing() for field in vars(of)["__attrs_attrs__"]},
        )
    if dataclasses.is_dataclass(cls):
        return fields_of_instance, fields_of_dataclass
    return None


def _fields_of_struct(cls: Any) -> dict[str, bool]:
    import msgspec

    return {field.name: field.required for field in msgspec.structs.fields(cls)}


def _nothing() -> Any:
    import attrs

    return attrs.NOTHING


def fields_of_instance(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass instance; unlike `asdict`, without a deep copy."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def fields_of_dataclass(cls: Any) -> dict[str, bool]:
    """Return the names of a dataclass's fields, and whether each is required."""
    missing = dataclasses.MISSING
    return {
        field.name: field.default is missing and field.default_factory is missing for field in dataclasses.fields(cls)
    }
