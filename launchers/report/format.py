"""Numbers and text as a reader wants them: counts, intervals, times, sizes; `–` for what is not known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# C0 and C1 controls, lone surrogates, and the marks that turn the direction of text: they hide text.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def count(value: float | None) -> str:
    """3052 -> 3,052."""
    return "–" if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 1) -> str:
    """71.64 -> 71.6."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """21.34 -> +21.3; -0.04 -> 0.0."""
    if value is None:
        return "–"
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def span(interval: tuple[float, float] | list[float] | None) -> str:
    """[50.14, 57.4] -> 50.1 to 57.4."""
    return "–" if not interval else f"{number(interval[0])} to {number(interval[1])}"


def clock(seconds: float | None) -> str:
    """4.2 -> 4.2 s; 284 -> 4 min 44 s; 11520 -> 3 h 12 min."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count_of_bytes: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count_of_bytes < 1000:
            return f"{count_of_bytes:.0f} {unit}" if unit == "B" else f"{count_of_bytes:.1f} {unit}"
        count_of_bytes /= 1000
    return f"{count_of_bytes:.1f} TB"


def visible(value: Any) -> Any:
    """Text with invisible characters as U+FFFD; newlines and tabs, and what is no plain text, stay."""
    if type(value) is not str:  # markup of our own is a subclass
        return value
    return _INVISIBLE.sub("\ufffd", value.replace("\r\n", "\n"))


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "number": number,
    "signed": signed,
    "span": span,
    "clock": clock,
    "size": size,
}
