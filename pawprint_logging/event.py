"""Events as values that users log: typed or not, with any field names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ._capture.declared import (
    EventText,
    declare,
    declared,
    fields_of_dataclass,
    fields_of_instance,
    plain_name,
    read_without_name,
    reader_of,
)
from ._capture.storable import stand_in

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # in typing from Python 3.11 on, and for type checkers only

    def dataclass_transform(**_: Any) -> Any:
        """Return a decorator that leaves a class as it is."""
        return lambda cls: cls


Class = TypeVar("Class", bound=type)

#: the attribute that holds an event's name; no field may be called that
_NAME = "__event__"


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
class Event:
    """An event, to be logged as the message or as the value of the marker.

    A field may have any name, even one that `logging` refuses for an extra, such as ``name`` or ``message``. Fields
    that are columns of the table go there, the others into the JSON column. Instances cannot be changed.

    A subclass is a typed event: a frozen, keyword-only dataclass, without the decorator. ``name=None`` in its class
    statement makes a base for other classes, which inherit its fields; the base itself has no instances.

    Args:
        name: the event's name.
        fields: the event's fields.

    Raises:
        TypeError: the name is not text, or is empty; or a class statement has no ``name=``, or the name of another
            class.

    Example:
        >>> from decimal import Decimal
        >>> class Purchase(Event, name="purchase"):
        ...     user_id: str
        ...     amount: Decimal
        >>> print(Purchase(user_id="alice", amount=Decimal(5)))
        purchase user_id='alice' amount=Decimal('5')
        >>> Event("signup", user_id="alice", name="Alice")
        Event('signup', user_id='alice', name='Alice')
    """

    if TYPE_CHECKING:

        def __init_subclass__(cls, *, name: str | None) -> None: ...
    else:

        def __init_subclass__(cls, **keywords: Any) -> None:
            if keywords.keys() != {"name"}:
                problem = (
                    f"takes only name=, not {', '.join(sorted(keywords.keys() - {'name'}))}"
                    if "name" in keywords
                    else ""
                )
                raise TypeError(
                    f"{cls.__name__}: the class statement of an event {problem or 'needs a name'}, as in "
                    f'`class {cls.__name__}(Event, name="…")`; name=None makes a base without instances'
                )
            if _NAME in vars(cls).get("__annotations__", {}):
                raise TypeError(f"{cls.__name__}: a field cannot be called {_NAME}")
            super().__init_subclass__()  # of the bases after Event, such as Generic
            name = plain_name(keywords["name"])
            setattr(cls, _NAME, name)
            dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
            if name is not None:  # after all that may raise: only a complete class is declared
                declare(cls, name, lambda event: (name, fields_of_instance(event)), fields_of_dataclass)

    def __new__(cls, /, *_: Any, **__: Any) -> Event:
        """Refuse to make an instance of a base."""
        if cls is not Event and getattr(cls, _NAME) is None:
            raise TypeError(
                f"{cls.__name__} is a base class (name=None) without instances; log an instance of a subclass"
            )
        return super().__new__(cls)

    def __init__(self, name: str, /, **fields: Any) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f'the name of an event must be text, as in Event("signup"); not {name!r}')
        vars(self).update(fields)
        vars(self)[_NAME] = str.__str__(name)  # as `plain_name`

    def __setattr__(self, field: str, _: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {field!r}")

    def __delattr__(self, field: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {field!r}")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), frozenset(vars(self).items())))

    def __str__(self) -> str:
        return EventText.of(" ".join([getattr(self, _NAME), *_shown(self)]), self)

    def __repr__(self) -> str:
        given = [repr(getattr(self, _NAME))] if type(self) is Event else []
        return f"{type(self).__qualname__.rpartition('.')[2]}({', '.join([*given, *_shown(self)])})"

    def __mod__(self, _: object) -> Event:
        """Ignore the arguments that structlog's loggers would put into the message."""
        return self


read_without_name(Event, lambda event: (vars(event)[_NAME], _given(event)))


def _given(event: Event) -> dict[str, Any]:
    """Return the fields of an untyped event."""
    return {name: value for name, value in vars(event).items() if name != _NAME}


def _shown(event: Event) -> list[str]:
    """Return the fields to show, each as ``name=value``."""
    if type(event) is Event:
        fields = _given(event)
    else:
        shown = [field.name for field in dataclasses.fields(event) if field.repr]  # type: ignore[arg-type]
        fields = {name: getattr(event, name) for name in shown}
    return [f"{name}={_repr(value)}" for name, value in fields.items()]


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # must not keep the event from being printed
        return stand_in(value)


def register_event(cls: Class, *, name: str) -> Class:
    """Make instances of a pydantic, msgspec or attrs class events, as if it were a subclass of `Event`.

    Args:
        cls: the class, which is left as it is. It may also be a dataclass.
        name: the name of its events.

    Returns:
        The class.

    Raises:
        TypeError: the class is of another kind, or the name is not text, or another class has it.

    Example:
        >>> import attrs
        >>> @attrs.frozen
        ... class Login:
        ...     user_id: str
        >>> Login = register_event(Login, name="login")
    """
    way = reader_of(cls, plain_name(name)) if isinstance(cls, type) else None
    if way is None:
        kind = cls.__name__ if isinstance(cls, type) else f"a {type(cls).__name__}"
        raise TypeError(f"register_event() takes a pydantic, msgspec or attrs class or a dataclass, not {kind}")
    declare(cls, name, *way)
    return cls


def declared_events() -> Mapping[str, type]:
    """Return the classes of events declared so far, by the names of their events."""
    return declared()
