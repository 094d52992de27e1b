"""Reads API keys. They stay in memory: no parameter, manifest, log or message contains one."""

import os
import re
from pathlib import Path
from typing import Annotated

from data_prep.core.validation import checked
from data_prep.errors import DataError

NO_KEY = "none"  # local servers need no key, but the header is sent


def key_source(value: str) -> str:
    """Validates a parameter that says where keys are; keys themselves must not be parameters. Raises ValueError."""
    if "/" not in value and not re.fullmatch("[A-Z_][A-Z0-9_]*", value):
        raise ValueError(
            "must be the name of an environment variable (capitals, digits, _) or the path of a key file "
            "(with a /, such as ./keys.txt); the value is not shown, since it may be a key"
        )
    return value


KeySource = Annotated[str | None, checked(key_source)]


def read_keys(source: str | None, base: Path) -> tuple[str, ...]:
    """Keys from an environment variable's name or, with a `/`, a file with one per line. Raises DataError.

    A repeated key counts once: rate limits apply per key, not per line.
    """
    if source is None:
        return ()
    where, text = f"environment variable {source}", "\n".join(os.environ.get(source, "").split())
    if "/" in source:
        try:
            path = base / Path(source).expanduser()
            where, text = str(path), path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"api_key_env: {path} is not UTF-8 at byte {error.start}; write one key per line") from None
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: `~` of an unknown user
            why = f" ({error.strerror})" if isinstance(error, OSError) else ""
            raise DataError(f"api_key_env: cannot read the key file{why}; relative paths start from {base}") from None
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"api_key_env: {where} contains no key: set it, or write one key per line")
    if not all(line.isascii() and line.isprintable() for line in lines):
        raise DataError(f"api_key_env: {where} contains an invalid key: keys are printable ASCII")
    return tuple(dict.fromkeys(lines))
