"""A function without the steps that a configuration does not need, made as dataclasses make their methods.

The function is written once, in full, with conditions that are known when a handler is made. From its source another
one is compiled that lacks what such a condition rules out: to ask costs the calling thread at each event. Where the
source is not at hand, or no longer the one that was imported, the function is used as it is, and does the same.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: configurations whose functions are kept, for handlers of the same one
_MAX_KEPT = 64


def made_for(maker: Callable[P, R], **known: bool) -> Callable[P, R]:
    """Return the maker of a function, or one that makes it without what it does not need.

    Args:
        maker: a function at the top of its module that defines a function and returns it. It has no `assert`, which
            pytest would rewrite.
        known: parameters of the maker, and what they are going to be.
    """
    assert isinstance(maker, FunctionType)
    try:
        made = _compiled(maker, frozenset(known.items()))
    except Exception:  # no source, as in a frozen program; or one that this Python reads otherwise
        made = None
    return maker if made is None else made


@lru_cache(maxsize=_MAX_KEPT)
def _compiled(maker: FunctionType, known: frozenset[tuple[str, bool]]) -> Any:
    if not _is_same(_code(_source(maker), maker), maker.__code__):
        return None
    code = _code(_Pruning(dict(known)).visit(_source(maker)), maker)
    made = FunctionType(code, maker.__globals__, maker.__name__, maker.__defaults__)
    made.__kwdefaults__ = maker.__kwdefaults__
    return made


def _source(maker: FunctionType) -> ast.Module:
    """Return the definition of a function, and what its module imports, which the compiler looks at too."""
    module = inspect.getmodule(maker)
    assert module is not None
    tree = ast.parse(inspect.getsource(module))
    tree.body = [
        each
        for each in tree.body
        if isinstance(each, (ast.Import, ast.ImportFrom))
        or (isinstance(each, ast.FunctionDef) and each.name == maker.__name__)
    ]
    return tree


def _code(tree: ast.Module, maker: FunctionType) -> CodeType:
    made = compile(tree, maker.__code__.co_filename, "exec", dont_inherit=True)
    return next(each for each in made.co_consts if isinstance(each, CodeType) and each.co_name == maker.__name__)


def _is_same(one: CodeType, other: CodeType) -> bool:
    """Return whether two functions are the same; a newer file may be in the place of the one that was imported."""
    if (one.co_code, one.co_names, one.co_varnames, one.co_freevars, one.co_firstlineno) != (
        *(other.co_code, other.co_names, other.co_varnames, other.co_freevars, other.co_firstlineno),
    ) or len(one.co_consts) != len(other.co_consts):
        return False
    for mine, its in zip(one.co_consts, other.co_consts, strict=True):
        if isinstance(mine, CodeType) and isinstance(its, CodeType):
            if not _is_same(mine, its):
                return False
        elif mine != its or type(mine) is not type(its):
            return False
    return True


class _Pruning(ast.NodeTransformer):
    """Leaves out what known conditions rule out, and nothing else.

    Args:
        known: names, and what they are.
    """

    def __init__(self, known: dict[str, bool]) -> None:
        self._known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: N802 - ast's name
        if isinstance(node.ctx, ast.Load) and node.id in self._known:
            return ast.copy_location(ast.Constant(self._known[node.id]), node)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.copy_location(ast.Constant(not node.operand.value), node)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:  # noqa: N802
        self.generic_visit(node)
        decides = isinstance(node.op, ast.Or)
        values: list[ast.expr] = []
        for value in node.values:
            if not isinstance(value, ast.Constant):
                values.append(value)
            elif bool(value.value) is decides:
                values.append(value)
                break  # what follows is never asked
        node.values = values
        if not values:
            return ast.copy_location(ast.Constant(not decides), node)
        return values[0] if len(values) == 1 else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return (node.body if node.test.value else node.orelse) or [ast.copy_location(ast.Pass(), node)]
        if not node.body:
            node.body = [ast.copy_location(ast.Pass(), node)]
        return node
