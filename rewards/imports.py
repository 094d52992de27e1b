"""Imports user code named as `package.module:name`, which may raise any exception."""

import importlib
from pathlib import Path
from traceback import extract_tb
from typing import Any


def imported(place: str) -> Any:
    """The object at `package.module:name`. Raises ValueError with the reason and the faulty line of user code."""
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything when it is imported
        last = extract_tb(error.__traceback__)[-1]
        inside = not isinstance(error, SyntaxError) and not last.filename.startswith("<") and last.filename != __file__
        line = f" ({Path(last.filename).name}, line {last.lineno})" if inside else ""
        raise ValueError(f"{error or type(error).__name__}{line}") from None
