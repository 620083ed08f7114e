"""Calls as QCaudron/pawprint took them: they fail with an error that spells them as this package takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def explains_former_calls(former: str) -> Callable[[Method], Method]:
    """Make a method that takes one field tell callers of pawprint's method how to write the call here.

    Args:
        former: pawprint's name of the argument for the field.
    """

    def decorate(method: Method) -> Method:
        name = method.__name__

        @functools.wraps(method)
        def explaining(self: Any, /, *fields: Any, **options: Any) -> Any:
            if former in options:
                raise TypeError(f"{name}() has no argument {former}=; it is called field: {name}(field=…)")
            if len(fields) > 1:
                spelled = ", ".join(f"{each}=…" for each in ("resolution", "start", "end")[: len(fields) - 1])
                raise TypeError(f"{name}() takes only the field by position: {name}({fields[0]!r}, {spelled})")
            return method(self, *fields, **options)

        return cast("Method", explaining)

    return decorate
