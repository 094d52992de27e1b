"""Wrong versions of a right solution: a comparison turned round, a constant off by one, + for -, a stub.

Tests that cannot tell these from the solution test little. A solution is changed token by token, outside of comments,
strings, imports, preprocessor lines and what a `raise` or `throw` says, which is seldom tested. What a C++ change makes
of the program only a compiler knows.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from data_prep.families.skill_mix.cpp_tokens import NotConvertible, closing
from data_prep.families.skill_mix.signatures import Language, SignatureError, read
from rewards.code.cpp.declaration import Type


@dataclass(frozen=True)
class Mutant:
    """change: what differs, in words, with the line of the solution."""

    code: str
    change: str


@dataclass(frozen=True)
class _Token:
    text: str
    kind: str
    start: int
    end: int


_SKIP: Mapping[Language, str] = {
    "python": r"\#[^\n]*",
    "cpp": r"//[^\n]* | /\*.*?(?:\*/|\Z) | (?:(?<=\n)|\A)[ \t]*\#(?:\\\n|[^\n])*",
}
_TEXT: Mapping[Language, str] = {
    "python": r"""[bBfFrRuU]{0,2}(?:(?P<mark>\"{3}|'{3}).*?(?:(?P=mark)|\Z) | "(?:[^"\\\n]|\\.)*"
        | '(?:[^'\\\n]|\\.)*')""",
    "cpp": r"""R"(?P<mark>[^()\\\s]{0,16})\(.*?(?:\)(?P=mark)"|\Z) | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)+'""",
}
_REST = r"""
  | (?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
  | (?P<word>[^\W\d]\w*)
  | (?P<sign>::|->|<<=|>>=|\*\*|//|[<>=!+\-*/%^&|]=|&&|\|\||\+\+|--|[^\s\w])
"""
_TOKEN = {
    language: re.compile(f"(?P<skip>{_SKIP[language]}) | (?P<text>{_TEXT[language]}) {_REST}", re.VERBOSE | re.DOTALL)
    for language in _SKIP
}
_SIGNS: Mapping[str, str] = {
    "<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "+": "-", "-": "+",
    "+=": "-=", "-=": "+=", "*=": "+=", "*": "+", "/": "*", "%": "/", "//": "*", "**": "*",
}  # fmt: skip
_SPACED = frozenset({"<", ">", "*", "+", "-", "/", "%"})  # that may be something else unless spaces are around them
_OPENING = frozenset(" ([{,=")  # before a sign
_WORDS: Mapping[Language, Mapping[str, str]] = {
    "python": {"True": "False", "False": "True", "min": "max", "max": "min", "any": "all", "all": "any", "and": "or",
               "or": "and", "not": "", "sorted": "list"},
    "cpp": {"true": "false", "false": "true", "min": "max", "max": "min"},
}  # fmt: skip
# After these words nothing is changed: in Python up to the end of the line, in C++ of the statement.
_LEFT_ALONE: Mapping[Language, tuple[str, ...]] = {
    "python": ("raise", "assert", "import", "from"),
    "cpp": ("throw",),
}


def mutants(gold: str, language: Language, seed: str) -> Iterator[Mutant]:
    """All mutants, in an order that the seed decides: first one of each line, then a second of each, and so on."""
    tokens = _tokens(gold, language)
    changes = [
        (token, new)
        for at, (token, alone) in enumerate(zip(tokens, _left_alone(gold, tokens, language), strict=True))
        if not alone and (new := _changed(gold, tokens, at, language))
    ]
    changes.sort(key=lambda change: hashlib.sha256(f"{seed}:{change[0].start}".encode()).hexdigest())
    earlier = Counter[int]()  # changes of each line
    turns = []
    for token, new in changes:
        line = gold.count("\n", 0, token.start) + 1
        turns.append((earlier[line], line, token, new))
        earlier[line] += 1
    for _, line, token, new in sorted(turns, key=itemgetter(0)):
        code = gold[: token.start] + new.strip() + gold[token.end :]
        if language == "cpp" or _is_python(code):
            yield Mutant(code, f"line {line}: {token.text} to {new.strip() or 'nothing'}")


def stub(gold: str, language: Language, function: str, signature: str) -> str | None:
    """The solution with the function's body gone and a default value for an answer; None where it is not found."""
    return _python_stub(gold, function, signature) if language == "python" else _cpp_stub(gold, function)


def _tokens(code: str, language: Language = "cpp") -> list[_Token]:
    return [
        _Token(match.group(), str(match.lastgroup), match.start(), match.end())
        for match in _TOKEN[language].finditer(code)
        if not match.group("skip")
    ]


def _changed(code: str, tokens: Sequence[_Token], at: int, language: Language) -> str:
    """What stands in a token's place in a mutant, "" if nothing does."""
    token = tokens[at]
    before, after = tokens[at - 1] if at else None, tokens[at + 1] if at + 1 < len(tokens) else None
    if before and before.text in ("operator", "template", "case"):
        return ""
    if token.kind == "number":
        return str(int(token.text) + 1) if re.fullmatch(r"0|[1-9][0-9]{0,8}", token.text) else ""
    if token.kind == "word":
        return " " if token.text == "not" else _WORDS[language].get(token.text, "")
    if (
        token.text == "-"
        and code[token.start - 1 : token.start] in _OPENING
        and not code[token.end : token.end + 1].isspace()
    ):
        return "+"  # a sign: the number without it
    if token.text in _SPACED and not (code[token.start - 1 : token.start] == code[token.end : token.end + 1] == " "):
        return ""
    joins_texts = any(side is not None and side.kind in ("text", "mark") for side in (before, after))
    if language == "python" and token.text in "+%*" and joins_texts:
        return ""  # text is formatted or joined: no number changes
    return _SIGNS.get(token.text, "") if token.kind == "sign" else ""


def _left_alone(code: str, tokens: Sequence[_Token], language: Language) -> Iterator[bool]:
    """For each token whether it stands after a word that leaves the rest of its line or statement alone."""
    alone, end, before = False, 0, ""
    for token in tokens:
        over = "\n" in code[end : token.start] if language == "python" else before == ";"
        alone = token.text in _LEFT_ALONE[language] or (alone and not over)
        end, before = token.end, token.text
        yield alone


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_PLAIN: Mapping[str, str] = {
    "int": "0", "float": "0.0", "bool": "False", "str": "''", "char": "''", "list": "[]", "map": "{}", "set": "set()",
    "optional": "None",
}  # fmt: skip


def _python_stub(gold: str, function: str, signature: str) -> str | None:
    if not _is_python(gold):
        return None
    tree = ast.parse(gold)
    same = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    try:
        answer = _default(read(signature, "python").result)
    except SignatureError:
        answer = "None"
    for node in same:
        node.body = ast.parse(f"return {answer}", mode="exec").body
    return ast.unparse(tree) if same else None


def _default(kind: Type) -> str:
    if kind.kind == "tuple":
        return f"({''.join(f'{_default(arg)}, ' for arg in kind.args)})"
    return _PLAIN[kind.kind]


def _cpp_stub(gold: str, function: str) -> str | None:
    """Every definition of a function of that name loses its body."""
    tokens = _tokens(gold)
    texts = [token.text for token in tokens]
    made, upto = "", 0
    for at, token in enumerate(tokens):
        if texts[at : at + 2] != [function, "("] or token.start < upto:
            continue
        try:
            opened = closing(texts, at + 1) + 1
            while texts[opened] in ("const", "noexcept"):
                opened += 1
            closed = closing(texts, opened)
        except (NotConvertible, IndexError):
            continue
        if texts[opened] == "{":  # else it is a call, or a declaration
            empty = "{ }" if at and texts[at - 1] == "void" else "{ return {}; }"
            made += gold[upto : tokens[opened].start] + empty
            upto = tokens[closed].end
    return made + gold[upto:] if upto else None
