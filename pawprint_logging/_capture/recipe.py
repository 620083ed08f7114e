"""A function without the steps that a configuration does not need, compiled from source, as dataclasses do it.

The function is written once, in full, with conditions that are known when a handler is made. A second function is
compiled from its source without the branches that these conditions rule out: testing them would cost the calling thread
time at each event. If the source is missing, or has changed since the import, the function is used as it is, and does
the same.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = ParamSpec("P")
R = TypeVar("R")

#: compiled functions that are kept, for handlers with the same configuration
_MAX_KEPT = 64


def made_for(maker: Callable[P, R], **known: DataclassInstance) -> Callable[P, R]:
    """Return a maker whose function lacks the branches that `known` rules out, or the same maker if that fails.

    Args:
        maker: a function at the top level of its module that defines a function and returns it. It has no `assert`,
            which pytest would rewrite.
        known: arguments that the maker will be called with: dataclasses whose fields are all bools.
    """
    assert isinstance(maker, FunctionType)
    try:
        made = _compiled(
            maker, frozenset((name, key, value) for name, each in known.items() for key, value in asdict(each).items())
        )
    except Exception:  # no source, as in a frozen program, or source that this Python parses differently
        made = None
    return maker if made is None else made


@lru_cache(maxsize=_MAX_KEPT)
def _compiled(maker: FunctionType, known: frozenset[tuple[str, str, bool]]) -> Any:
    text = _source(maker)
    if text is None:
        return None
    tree = _Pruning({(name, key): value for name, key, value in known}).visit(_tree(text, maker))
    made = FunctionType(_code(tree, maker), maker.__globals__, maker.__name__, maker.__defaults__)
    made.__kwdefaults__ = maker.__kwdefaults__
    return made


@lru_cache(maxsize=_MAX_KEPT)
def _source(maker: FunctionType) -> str | None:
    """Return the source of a function's module, or None if it is not the source that was imported.

    A newer file may have taken its place, or may do so later, so it is read only once.
    """
    module = inspect.getmodule(maker)
    assert module is not None
    text = inspect.getsource(module)
    return text if _is_same(_code(_tree(text, maker), maker), maker.__code__) else None


def _tree(text: str, maker: FunctionType) -> ast.Module:
    """Return a function's definition and its module's imports, which affect how the function is compiled."""
    tree = ast.parse(text)
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
    """Return whether two functions have the same code."""
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
    """Removes the code that known conditions rule out, and nothing else.

    Args:
        known: parameter and attribute → the attribute's value.
    """

    def __init__(self, known: dict[tuple[str, str], bool]) -> None:
        self._known = known

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        value = self._known.get((node.value.id, node.attr)) if isinstance(node.value, ast.Name) else None
        if value is None:
            self.generic_visit(node)
            return node
        return ast.copy_location(ast.Constant(value), node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.copy_location(ast.Constant(not node.operand.value), node)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        decides = isinstance(node.op, ast.Or)
        values: list[ast.expr] = []
        for value in node.values:
            if not isinstance(value, ast.Constant):
                values.append(value)
            elif bool(value.value) is decides:
                values.append(value)
                break  # what follows is never evaluated
        node.values = values
        if not values:
            return ast.copy_location(ast.Constant(not decides), node)
        return values[0] if len(values) == 1 else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return (node.body if node.test.value else node.orelse) or [ast.copy_location(ast.Pass(), node)]
        if not node.body:
            node.body = [ast.copy_location(ast.Pass(), node)]
        return node
