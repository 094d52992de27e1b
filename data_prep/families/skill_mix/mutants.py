"""Mutants of a correct solution: a reversed comparison, a constant off by one, + for -, a stub.

Tests that pass mutants are weak. Each mutant changes one token, outside comments, strings, imports, preprocessor lines
and the arguments of `raise` or `throw`, which are rarely tested. C++ mutants may not compile.
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from data_prep.families.skill_mix.signatures import Language, SignatureError, read
from data_prep.families.skill_mix.tokens import closing, tokenise
from rewards.code.cpp.declaration import Type


@dataclass(frozen=True)
class Mutant:
    """change: description of the change, with the solution's line number."""

    code: str
    change: str


_SIGNS: Mapping[str, str] = {
    "<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "+": "-", "-": "+",
    "+=": "-=", "-=": "+=", "*=": "+=", "*": "+", "/": "*", "%": "/", "//": "*", "**": "*",
}  # fmt: skip
_SPACED = frozenset({"<", ">", "*", "+", "-", "/", "%"})  # may be other syntax unless surrounded by spaces
_OPENING = frozenset(" ([{,=")  # before a sign
_WORDS: Mapping[Language, Mapping[str, str]] = {
    "python": {"True": "False", "False": "True", "min": "max", "max": "min", "any": "all", "all": "any", "and": "or",
               "or": "and", "not": "", "sorted": "list"},
    "cpp": {"true": "false", "false": "true", "min": "max", "max": "min"},
}  # fmt: skip
# After these words nothing is mutated up to the end of the line (Python) or statement (C++).
_PROTECTING: Mapping[Language, tuple[str, ...]] = {
    "python": ("raise", "assert", "import", "from"),
    "cpp": ("throw",),
}


def mutants(gold: str, language: Language, seed: str) -> Iterator[Mutant]:
    """All mutants in a seeded order: first one per line, then a second per line, and so on."""
    tokens = tokenise(gold, language)
    changes = [
        (token, new)
        for at, (token, alone) in enumerate(zip(tokens, _protected(gold, tokens, language), strict=True))
        if not alone and (new := _changed(gold, tokens, at, language))
    ]
    changes.sort(key=lambda change: hashlib.sha256(f"{seed}:{change[0].start()}".encode()).hexdigest())
    earlier = Counter[int]()  # mutants per line so far
    turns = []
    for token, new in changes:
        line = gold.count("\n", 0, token.start()) + 1
        turns.append((earlier[line], line, token, new))
        earlier[line] += 1
    for _, line, token, new in sorted(turns, key=itemgetter(0)):
        code = gold[: token.start()] + new.strip() + gold[token.end() :]
        if language == "cpp" or _parsed(code):
            yield Mutant(code, f"line {line}: {token.group()} to {new.strip() or 'nothing'}")


def stub(gold: str, language: Language, function: str, signature: str) -> str | None:
    """The solution with the function's body replaced by a default return value; None if the function is not found."""
    return _python_stub(gold, function, signature) if language == "python" else _cpp_stub(gold, function)


def _changed(code: str, tokens: Sequence[re.Match[str]], at: int, language: Language) -> str:
    """The token's replacement in a mutant, "" if there is none."""
    token, text = tokens[at], tokens[at].group()
    if at and tokens[at - 1].group() in ("operator", "template", "case"):
        return ""
    if token.lastgroup == "number":
        return str(int(text) + 1) if re.fullmatch(r"0|[1-9][0-9]{0,8}", text) else ""
    if token.lastgroup == "word":
        return " " if text == "not" else _WORDS[language].get(text, "")
    before, after = code[token.start() - 1 : token.start()], code[token.end() : token.end() + 1]
    if text == "-" and before in _OPENING and not after.isspace():
        return "+"  # a sign: the number without it
    if text in _SPACED and not before == after == " ":
        return ""
    if (
        language == "python"
        and text in "+%*"
        and any(side.lastgroup == "text" for side in tokens[max(0, at - 1) :][:3])
    ):
        return ""  # string formatting or concatenation: not arithmetic
    return _SIGNS.get(text, "") if token.lastgroup == "sign" else ""


def _protected(code: str, tokens: Sequence[re.Match[str]], language: Language) -> Iterator[bool]:
    """For each token, whether it follows a word after which nothing in its line or statement is mutated."""
    protected, end, before = False, 0, ""
    for token in tokens:
        over = "\n" in code[end : token.start()] if language == "python" else before == ";"
        protected = token.group() in _PROTECTING[language] or (protected and not over)
        end, before = token.end(), token.group()
        yield protected


def _parsed(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_PLAIN: Mapping[str, str] = {
    "int": "0", "float": "0.0", "bool": "False", "str": "''", "char": "''", "list": "[]", "map": "{}", "set": "set()",
    "optional": "None",
}  # fmt: skip


def _python_stub(gold: str, function: str, signature: str) -> str | None:
    if (tree := _parsed(gold)) is None:
        return None
    same = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    try:
        answer = _default(read(signature, "python").result)
    except SignatureError:
        answer = "None"
    for node in same:
        node.body = ast.parse(f"return {answer}").body
    return ast.unparse(tree) if same else None


def _default(kind: Type) -> str:
    if kind.kind == "tuple":
        return f"({''.join(f'{_default(arg)}, ' for arg in kind.args)})"
    return _PLAIN[kind.kind]


def _cpp_stub(gold: str, function: str) -> str | None:
    """Empties the body of every definition of a function with this name."""
    tokens = tokenise(gold, "cpp")
    texts = [token.group() for token in tokens]
    made, upto = "", 0
    for at, token in enumerate(tokens):
        if texts[at : at + 2] != [function, "("] or token.start() < upto:
            continue
        try:
            opened = closing(texts, at + 1) + 1
            while texts[opened] in ("const", "noexcept"):
                opened += 1
            closed = closing(texts, opened)
        except (ValueError, IndexError):
            continue
        if texts[opened] == "{":  # else it is a call, or a declaration
            empty = "{ }" if at and texts[at - 1] == "void" else "{ return {}; }"
            made += gold[upto : tokens[opened].start()] + empty
            upto = tokens[closed].end()
    return made + gold[upto:] if upto else None
