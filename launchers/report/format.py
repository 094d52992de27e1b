"""Formats numbers and text for reports: counts, intervals, times, sizes; `–` for unknown values."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_prep.core.files import size_text

Metric = Mapping[str, Any]  # name, unit, higher_is_better
ACCURACY: Metric = {"name": "accuracy", "unit": "%", "higher_is_better": True}  # the default metric
# C0 and C1 control characters, lone surrogates, and bidirectional formatting characters, which can hide text.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def count(value: float | None) -> str:
    """3052 -> 3,052."""
    return "–" if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 1) -> str:
    """71.64 -> 71.6."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, metric: Metric = ACCURACY) -> str:
    """21.34 -> +21.3; -0.04 -> 0.0; more digits for small values of metrics not in percent."""
    text = figure(value, metric)
    if value is not None and not text.strip("−0."):
        return text.lstrip("−")
    return text if value is None or value < 0 else f"+{text}"


def span(interval: Sequence[float] | None, metric: Metric = ACCURACY) -> str:
    """[50.14, 57.4] -> 50.1 to 57.4."""
    if not interval:
        return "–"
    digits = _digits(max(map(abs, interval)), metric)
    return f"{number(interval[0], digits)} to {number(interval[1], digits)}"


def figure(value: float | None, metric: Metric = ACCURACY) -> str:
    """71.64 -> 71.6; more digits for small values of metrics not in percent."""
    return "–" if value is None else number(value, _digits(value, metric))


def measured(value: float | None, metric: Metric = ACCURACY) -> str:
    """71.64 -> 71.6 %; BLEU 0.2143 -> 0.214; a score in points -10.64 -> −10.6 points."""
    return "–" if value is None else f"{figure(value, metric)} {metric['unit']}".strip()


def _digits(value: float, metric: Metric) -> int:
    """Digits after the decimal point: one for percent and numbers from 10, two from 1, else three."""
    return 1 if metric["unit"] == "%" or abs(value) >= 10 else 2 if abs(value) >= 1 else 3


def heading(metric: Metric) -> str:
    """The metric with its unit, for axes and column heads: accuracy, %."""
    return ", ".join(filter(None, (metric["name"], metric["unit"])))


def points(metric: Metric) -> str:
    """The unit of differences: points for percent, else the metric's unit."""
    return "points" if metric["unit"] == "%" else str(metric["unit"])


def change(value: float, metric: Metric = ACCURACY) -> str:
    """A difference with its unit: 3.21 -> +3.2 points."""
    return f"{signed(value, metric)} {points(metric)}".strip()


def sign(interval: Sequence[float]) -> int:
    """1 or -1 if the interval excludes zero, else 0."""
    return int(interval[0] > 0) - int(interval[1] < 0)


def clock(seconds: float | None) -> str:
    """4.2 -> 4.2 s; 284 -> 4 min 44 s; 11520 -> 3 h 12 min."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def visible(value: Any) -> Any:
    """Replace invisible characters in a str by U+FFFD, except newlines and tabs; other values are unchanged."""
    if type(value) is not str:  # Markup is a subclass
        return value
    return _INVISIBLE.sub("\ufffd", value.replace("\r\n", "\n"))


FILTERS: dict[str, Callable[..., str]] = {
    **{function.__name__: function for function in (count, number, signed, span, figure, heading, points, clock)},
    "measured": lambda value, metric=ACCURACY: measured(value, metric).replace(" %", "\u00a0%"),
    "size": size_text,
}
