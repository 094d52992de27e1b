"""Extracts the JSON object from a model's reply, which may be in a code fence or surrounded by text."""

import json
import re
from typing import Any

MOST_CHARS = 200_000
FENCE = re.compile(r"^```[\w+]*[ \t]*\n(.*?)\n?```[ \t]*$", re.DOTALL | re.MULTILINE)


class NoObject(ValueError):
    """The reply has no JSON object; the message says why."""


def extract_object(text: str) -> dict[str, Any]:
    """The JSON object of a reply: the whole text, in the last code fence with one, or within text. Raises NoObject."""
    text = text[:MOST_CHARS].strip()
    candidates = [text, *reversed([match.group(1) for match in FENCE.finditer(text)])]
    opened = text.find("{")
    candidates += [text[opened : text.rfind("}") + 1]] if opened >= 0 else []
    problem = "it contains no JSON object"
    for candidate in candidates:
        if not candidate.lstrip().startswith("{"):
            continue
        try:
            value = json.loads(candidate, parse_constant=_refused)
        except (ValueError, RecursionError) as error:
            problem = f"not JSON: {str(error)[:120] or 'nested too deeply'}"
            continue
        if isinstance(value, dict):
            return value
    raise NoObject(problem)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
