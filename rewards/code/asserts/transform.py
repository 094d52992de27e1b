"""Rewrites test code, as a tree and without running it, into what judge.py can run beside a journal.

Each `assert` becomes a numbered check, each statement of the top level is left at the first thing that the journal
does not hold, and a method call is one thing to ask. Names that the tests do not define are the program's.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rewards.errors import RewardError

MOST_CHARS = 1 << 20
_PROGRAM_MODULES = ("solution", "main", "__main__", "candidate")  # what tests may import the program as


@dataclass(frozen=True)
class Prepared:
    """source: what judge.py runs. lazy, eager: the program's names (see judge.judge). asserts: their number."""

    source: str
    lazy: tuple[str, ...]
    eager: tuple[str, ...]
    asserts: int


@lru_cache(maxsize=256)
def prepare(source: str, function: str = "") -> Prepared:
    """Test code made ready. Raises RewardError for text that is no test code."""
    if len(source) > MOST_CHARS:
        raise _bad(f"the source has {len(source)} characters, at most {MOST_CHARS} are read")
    try:
        tree = ast.parse(source)
        tree.body = [node for node in tree.body if not _imports_program(node)]
        _call_check(tree, function)
        free = _free_names(tree)
        eager = _looked_at(tree) & free
        rewrite = _Rewrite()
        body: list[ast.stmt] = [_left_early(rewrite.visit(node)) for node in tree.body if not _is_future(node)]
        text = ast.unparse(ast.fix_missing_locations(ast.Module(body, [])))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise _bad(f"the source is no Python: {type(problem).__name__}: {str(problem)[:100]}") from None
    if not rewrite.asserts:
        raise _bad("the source has no assert statement")
    return Prepared(text, tuple(sorted(free - eager)), tuple(sorted(eager)), rewrite.asserts)


def _bad(problem: str) -> RewardError:
    return RewardError(f"the row's tests: {problem}")


def _imports_program(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module in _PROGRAM_MODULES


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _call_check(tree: ast.Module, function: str) -> None:
    """HumanEval's `def check(candidate)` is called by the harness, not by the test code."""
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not defined or any(isinstance(call.func, ast.Name) and call.func.id == "check" for call in calls):
        return
    if not function:
        raise _bad("the source defines check and never calls it: add the key function, which names what to check")
    if not function.isidentifier():
        raise _bad(f"function {function!r} is no name")
    tree.body.append(ast.parse(f"check({function})").body[0])


def _free_names(tree: ast.Module) -> set[str]:
    """Global names that the code uses and nowhere binds, builtins aside."""
    top = symtable.symtable(ast.unparse(tree), "tests.py", "exec")
    used, bound = set(), set(dir(builtins)) | {"__name__", "__file__"}
    for table in _tables(top):
        for symbol in table.get_symbols():
            if table is top or symbol.is_global():
                if symbol.is_assigned() or symbol.is_imported():
                    bound.add(symbol.get_name())
                if symbol.is_referenced():
                    used.add(symbol.get_name())
    return used - bound


def _tables(top: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    waiting = [top]
    while waiting:
        table = waiting.pop()
        yield table
        waiting.extend(table.get_children())


def _looked_at(tree: ast.Module) -> set[str]:
    """Names that stand anywhere but as what is called, or as an argument to something that is not a builtin."""
    only_called: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            only_called.add(id(node.func))
            if not (isinstance(node.func, ast.Name) and hasattr(builtins, node.func.id)):
                only_called.update(id(argument) for argument in node.args)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in only_called}


def _left_early(node: ast.stmt) -> ast.stmt:
    return ast.With([ast.withitem(_name("_posttrain"))], [node])


def _name(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


def _call(method: str, args: Sequence[ast.expr], keywords: Sequence[ast.keyword] = ()) -> ast.Call:
    return ast.Call(ast.Attribute(_name("_posttrain"), method, ast.Load()), list(args), list(keywords))


class _Rewrite(ast.NodeTransformer):
    """Asserts to checks, method calls to questions."""

    def __init__(self) -> None:
        self.asserts = 0

    def visit_Assert(self, node: ast.Assert) -> Any:
        number, self.asserts = self.asserts, self.asserts + 1
        nothing = ast.arguments([], [], None, [], [], None, [])
        return ast.Expr(_call("check", [ast.Constant(number), ast.Lambda(nothing, self.visit(node.test))]))

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Attribute):
            return node
        return _call("method", [node.func.value, ast.Constant(node.func.attr), *node.args], node.keywords)
