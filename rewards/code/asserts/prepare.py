"""Rewrites the syntax tree of test code, without running it, into the form that rewards/sandbox/inside/judge.py runs.

Runs in the caller's process. The source is trusted to be test code, but may be malformed or very large.

In the rewritten code a failed `assert` is recorded and the next statement runs; inside `try` and `pytest.raises` it
raises, because the tests may expect the exception. An exception ends the top-level statement that raised it, and the
next one runs.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rewards.errors import RewardError
from rewards.sandbox.inside.channel import PROGRAM_MODULES

MOST_CHARS = 1 << 20
_SHORT_NAMES = {"np": "numpy", "numpy": "numpy", "pytest": "pytest"}
_REDIRECTED = (  # functions whose calls in the tests go through Verdicts.call
    "allclose", "assert_allclose", "assert_almost_equal", "assert_array_almost_equal", "assert_array_equal",
    "asdict", "astuple", "fields", "is_dataclass", "replace", "get_type_hints", "getdoc", "isfunction", "isclass",
    "isgeneratorfunction", "iscoroutinefunction",
)  # fmt: skip
_EXPECT_RAISING = ("raises", "warns", "assertRaises", "assertRaisesRegex", "suppress")
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
_PATCHING = ("patch", "object", "dict", "setattr", "delattr", "setitem", "delitem")
_CHANGED_BY_MENTION = {"sys.argv", "os.environ", "random.seed", "numpy.random.seed", "sys.setrecursionlimit"}
_STREAMS = ("sys.stdout", "sys.stderr")
_WARNING = ("warnings.warn",)
_CHANGED_BY = {  # a name -> the attributes that are replaced for the program if the name occurs in the tests
    "redirect_stdout": _STREAMS[:1], "redirect_stderr": _STREAMS[1:], "capsys": _STREAMS, "capfd": _STREAMS,
    "setenv": ("os.environ",), "delenv": ("os.environ",), "warns": _WARNING, "assertWarns": _WARNING,
    "assertWarnsRegex": _WARNING, "catch_warnings": _WARNING, "deprecated_call": _WARNING,
}  # fmt: skip
_NAME_FIELDS = ("id", "attr", "arg", "module", "name")  # of syntax tree nodes
_OUT_OF_REACH = {"assertLogs": "log messages", "assertNoLogs": "log messages", "tempfile": "files"}
_IN_PLACE = (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Pass, ast.Break, ast.Continue)


@dataclass(frozen=True)
class Prepared:
    """Test code as the judge runs it.

    declarations: source that is executed before the tests, and before the program. names: free names. modules: pairs
    (free name, module to import). asserts: number of assert statements. raises: whether tests can fail by statements
    other than assert. replaced: attributes of modules that the tests may replace, or call, for the program.
    """

    source: str
    declarations: str
    names: tuple[str, ...]
    modules: tuple[tuple[str, str], ...]
    asserts: int
    raises: bool
    replaced: tuple[str, ...]


@lru_cache(maxsize=256)
def prepare(source: str, function: str = "", declarations: str = "") -> Prepared:
    """Test code, rewritten for the judge. Raises RewardError if `source` is not test code."""
    if len(source) > MOST_CHARS:
        raise _bad(f"the source has {len(source)} characters, at most {MOST_CHARS} are read")
    if function and not function.isidentifier():
        raise _bad(f"function {function!r} is not an identifier")
    what = "the declarations are"
    try:
        ast.parse(declarations)
        what = "the source is"
        tree = ast.parse(source)
        declarations += _star_imports(tree)
        tree.body = [new for node in tree.body for new in _without_program_imports(node)]
        _call_tests(tree, function)
        free = _free_names(tree, function) or _own_builtin(tree)
        modules = tuple(sorted(_modules(tree, free).items()))
        tree = _Inspected().visit(tree)
        tests_calls = not any(isinstance(node, (ast.Assert, ast.Raise)) for node in ast.walk(tree))
        replaced = tuple(sorted(_replaced(tree)))
        rewrite = _Rewrite(tests_calls, _results(tree, free | _program_modules(tree)))
        tree.body = [_statement(node, rewrite) for node in tree.body]
        text = ast.unparse(ast.fix_missing_locations(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise _bad(f"{what} not valid Python: {type(problem).__name__}: {str(problem)[:100]}") from None
    if beyond := min(_words(tree) & _OUT_OF_REACH.keys(), default=""):
        raise _bad(f"{beyond} is not supported: {_OUT_OF_REACH[beyond]} are not shared by the tests and the program")
    if not rewrite.asserts and not rewrite.raises:
        raise _bad("the source has no assert statement, and nothing else that can fail")
    return Prepared(text, declarations, tuple(sorted(free)), modules, rewrite.asserts, rewrite.raises, replaced)


def _bad(problem: str) -> RewardError:
    return RewardError(f"the row's tests: {problem}")


def _star_imports(tree: ast.Module) -> str:
    """Star imports of modules, as text for the declarations: the names they define are not names of the program."""
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module not in PROGRAM_MODULES]
    return "".join(f"\n{ast.unparse(node)}\n" for node in imports if node.names[0].name == "*")


def _without_program_imports(node: ast.stmt) -> list[ast.stmt]:
    """The statements to run instead of `node`: for `from solution import f as g`, `g = f` with f as a free name."""
    if not isinstance(node, ast.ImportFrom) or node.module not in (*PROGRAM_MODULES, "__future__"):
        return [node]
    renamed = [alias for alias in node.names if alias.asname not in (None, alias.name)]
    return [ast.parse(f"{alias.asname} = {alias.name}").body[0] for alias in renamed]


def _call_tests(tree: ast.Module, function: str) -> None:
    """Append to `tree` the calls that a harness makes: HumanEval's `check`, and the tests of pytest and unittest."""
    imported = [node.names for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "unittest"]
    main = {"unittest.main", *(alias.name for names in imported for alias in names if alias.name == "main")}
    tree.body = [node for node in tree.body if not _calls(node, main)]
    mentioned = _mentioned(tree)
    cases = {"TestCase", "unittest.TestCase", "unittest.IsolatedAsyncioTestCase"}
    known = {"object", *cases}
    for node in list(tree.body):
        if isinstance(node, ast.ClassDef):
            bases = set(map(ast.unparse, node.bases))
            is_case, inherits = not cases.isdisjoint(bases), bool(bases - known)
            cases |= {node.name} if is_case else set()
            own = [part.name for part in node.body if isinstance(part, _DEFINITIONS)]
            is_plain = node.name.startswith("Test") and node.name not in mentioned and "__init__" not in own
            if (is_case or is_plain) and (inherits or any(name.startswith("test") for name in own)):
                tree.body.append(_call("collect", _name(node.name)))
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name in mentioned:
            continue
        elif node.name == "check":
            if not function:
                raise _bad("the source defines check and never calls it: add the key function, to name what to check")
            tree.body += ast.parse(f"check({function})").body
        elif node.name.startswith("test"):
            tree.body.append(_call("collect", _name(node.name)))


def _calls(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement calls one of these functions, directly or inside `if __name__ == "__main__"`."""
    calls = [ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)]
    return isinstance(node, (ast.If, ast.Expr)) and not names.isdisjoint(calls)


def _free_names(tree: ast.Module, function: str) -> set[str]:
    """Global names that the code uses and does not bind, without builtins other than `function`."""
    top = symtable.symtable(ast.unparse(tree), "tests.py", "exec")
    used, bound = set(), set(dir(builtins)) - {function} | {"__name__", "__file__", "__posttrain__"}
    for table in _tables(top):
        for symbol in table.get_symbols():
            if table is top or symbol.is_global():
                if symbol.is_assigned() or symbol.is_imported():
                    bound.add(symbol.get_name())
                if symbol.is_referenced():
                    used.add(symbol.get_name())
    return used - bound


def _tables(top: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """`top` and all tables nested in it."""
    yield top
    for child in top.get_children():
        yield from _tables(child)


def _own_builtin(tree: ast.Module) -> set[str]:
    """The builtin that every assert calls, used if no name is free: MBPP has a task whose function is `sum`."""
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            left = node.test.left if isinstance(node.test, ast.Compare) else node.test
            calls.append(left.func.id if isinstance(left, ast.Call) and isinstance(left.func, ast.Name) else "")
    return set(calls) if len(set(calls)) == 1 and hasattr(builtins, calls[0]) else set()


def _results(tree: ast.Module, free: set[str]) -> set[str]:
    """Names whose values may depend on the program: free names, parameters, and names assigned from expressions that
    mention such a name.
    """
    results = free | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assignments: list[tuple[set[str], set[str]]] = []  # (names that are set, names that their value mentions)
    for node in ast.walk(tree):
        source = next((getattr(node, part) for part in ("value", "iter", "context_expr") if hasattr(node, part)), None)
        if isinstance(node, _DEFINITIONS):
            assignments.append(({node.name}, _mentioned(node)))
        elif isinstance(node, ast.Assign):
            assignments.append((set().union(*map(_mentioned, node.targets)), _mentioned(node.value)))
        elif source is not None and (target := getattr(node, "target", getattr(node, "optional_vars", None))):
            assignments.append((_mentioned(target), _mentioned(source)))
    while new := set().union(*(names for names, by in assignments if not by.isdisjoint(results))) - results:
        results |= new
    return results


def _mentioned(node: ast.AST) -> set[str]:
    """All variable names in a node."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _modules(tree: ast.Module, free: set[str]) -> dict[str, str]:
    """Free names that are used only before a dot and name a module of the standard library, numpy or pytest, with that
    module.
    """
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    alone = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in owners}
    known = {name: name for name in sys.stdlib_module_names} | _SHORT_NAMES
    return {name: known[name] for name in free - alone if name in known}


def _program_modules(tree: ast.Module) -> set[str]:
    """Names under which the tests import the program as a module: s for `import solution as s`."""
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {alias.asname or alias.name for alias in aliases if alias.name in PROGRAM_MODULES}


def _words(tree: ast.Module) -> set[str]:
    """Names, attributes, parameters and imports of the code."""
    return {str(getattr(node, field)) for node in ast.walk(tree) for field in _NAME_FIELDS if hasattr(node, field)}


def _replaced(tree: ast.Module) -> set[str]:
    """Full names of the modules' attributes that the tests may change: by assignment, by `patch` or `setattr`, or by a
    fixture or context manager.
    """
    modules: dict[str, str] = {}
    names: set[str] = set()
    mentioned: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            (mentioned if isinstance(node.ctx, ast.Load) else names).add(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _PATCHING:
            words = [part.value if isinstance(part, ast.Constant) else ast.unparse(part) for part in node.args[:2]]
            names.update(map(str, words[:1]), [".".join(map(str, words))])

    names.update(*(_CHANGED_BY.get(word, ()) for word in _words(tree)))

    def full(dotted: str) -> str:
        head, dot, rest = dotted.partition(".")
        return modules.get(head, head) + dot + rest

    known = {*sys.stdlib_module_names, *PROGRAM_MODULES, "numpy"}
    by_mention = {*map(full, mentioned), *modules.values()} & _CHANGED_BY_MENTION
    return by_mention | {
        name for name in map(full, names) if _DOTTED.fullmatch(name) and name.partition(".")[0] in known
    }


def _statement(node: ast.stmt, rewrite: _Rewrite) -> ast.stmt:
    """A top-level statement, rewritten, in `with __posttrain__.statement(…)`; calls of `collect` are not changed."""
    if ast.unparse(node).startswith("__posttrain__.collect("):
        rewrite.raises = True
        return node
    before, rewrite.raises = rewrite.raises, False
    new = rewrite.block([node])
    if rewrite.calls and isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        rewrite.raises |= isinstance(node.value.func, ast.Attribute)  # not `f(1)`, which checks nothing
    own, rewrite.raises = rewrite.raises and not isinstance(node, _DEFINITIONS), before or rewrite.raises
    return ast.With([ast.withitem(_call("statement", ast.Constant(own)).value)], new)


def _name(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


def _call(method: str, *args: ast.expr) -> ast.Expr:
    """A call of a method of judge.py's `Verdicts`, which the rewritten code reaches as `__posttrain__`."""
    return ast.Expr(ast.Call(ast.Attribute(_name("__posttrain__"), method, ast.Load()), list(args), []))


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Inspected(ast.NodeTransformer):
    """Rewrites `type(x)`, `vars(x)`, `x.__class__`, `x.__dict__` and calls of `_REDIRECTED`, such as
    `dataclasses.asdict(x)`, to calls of judge.py: x may be a proxy.
    """

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in _REDIRECTED:
            call = ast.Attribute(_name("__posttrain__"), "call", ast.Load())
            return ast.Call(call, [node.func, *node.args], node.keywords)
        name = node.func.id if isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords else ""
        return _call(name, *node.args).value if name in ("type", "vars") else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        name = {"__class__": "type", "__dict__": "vars"}.get(node.attr) if isinstance(node.ctx, ast.Load) else None
        return _call(name, node.value).value if name else node


class _Rewrite(ast.NodeTransformer):
    """Numbers the asserts, and inserts calls between statements. raises: whether the code visited so far has `raise`,
    `pytest.raises` or an assert inside `try`.

    calls: whether a call statement is a test (`numpy.testing.assert_equal(f(1), 2)`): in code without `assert` and
    `raise`. results: names whose values may depend on the program.
    """

    def __init__(self, calls: bool, results: set[str]) -> None:
        self.asserts, self.raises, self._guarded, self.calls, self._results = 0, False, False, calls, results

    def block(self, body: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Rewritten statements, with `settle` before each, which applies earlier calls' changes to their arguments."""
        new: list[ast.stmt] = []
        for node in body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not isinstance(node, _IN_PLACE) and not docstring:
                without_result = isinstance(node, ast.Assert) and self._results.isdisjoint(_mentioned(node))
                new.append(_call("settle", ast.Constant(without_result)))
            rewritten = self.visit(node)
            new += rewritten if isinstance(rewritten, list) else [rewritten]
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                new.append(_call("settle", ast.Constant(True)))
        return new

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, value in ast.iter_fields(node):
            if field in ("body", "orelse", "finalbody") and isinstance(value, list):
                setattr(node, field, self.block(value))
            elif field in ("handlers", "cases"):
                for part in value:
                    self.visit(part)
        return node

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        number, self.asserts = ast.Constant(self.asserts), self.asserts + 1
        if self._guarded:
            self.raises = True
            return [_call("start", number), node, _call("ok", number)]
        handler = ast.ExceptHandler(None, None, [_call("fail", number)])
        return [ast.Try([node], [handler], [_call("ok", number)], [])]

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        self.raises = True
        return node

    def visit_Try(self, node: ast.Try) -> ast.stmt:
        node.body = self._guard(node.body, self._guarded or bool(node.handlers))
        for handler in node.handlers:
            handler.body = self.block(handler.body)
        node.orelse, node.finalbody = self.block(node.orelse), self.block(node.finalbody)
        return node

    def visit_With(self, node: ast.With) -> ast.stmt:
        parts = [part for item in node.items for part in ast.walk(item)]
        expects = any(getattr(part, "attr", getattr(part, "id", "")) in _EXPECT_RAISING for part in parts)
        self.raises |= expects
        node.body = self._guard(node.body, self._guarded or expects)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.body = self._guard(node.body, guarded=False)
        return node

    def _guard(self, body: list[ast.stmt], guarded: bool) -> list[ast.stmt]:
        """Rewritten statements; if `guarded`, failed asserts in them raise."""
        outer, self._guarded = self._guarded, guarded
        new = self.block(body)
        self._guarded = outer
        return new
