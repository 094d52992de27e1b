"""SVG plots of the report, drawn with matplotlib, one version per screen width.

Text stays text and colours are CSS variables (`--after`, `--ink` …), so that a plot follows the page's fonts and its
light or dark scheme. matplotlib is imported only when a plot is drawn, because the import is slow.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from launchers.envs import REPO
from launchers.report.format import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, NARROW = 660.0, 268.0  # points: the page's text column on a desktop and on a phone 390 px wide
PANEL = (316.0, 134.0)  # points: one of several plots in a grid
PANEL_EDGES = (41.0, 12.0, 32.0, 6.0)  # points left, right, below and above its axes, so that axes are aligned
HEAD = 1.45  # height of a group's heading in lines, including the space below the group
INK, MUTED, GRID, PAGE = "ink", "muted", "line", "page"


Draw = Callable[["Axes", float], None]  # draws on axes, given the width of the figure


@dataclass(frozen=True)
class Look:
    """The appearance of a series: a CSS tone, a matplotlib marker, and the matching glyph for text legends."""

    tone: str
    marker: str
    glyph: str
    hollow: bool = False
    dashed: bool = False


AFTER = Look("after", "o", "●")
BEFORE = Look("before", "o", "○", hollow=True)
PUBLISHED = Look("ink", "D", "◇", hollow=True)
OTHERS = (Look("c1", "s", "■"), Look("c2", "^", "▲"), Look("c3", "v", "▼"), Look("c4", "P", "✚"))


@dataclass(frozen=True)
class Series:
    """A curve of (step, value) points; values are multiplied by `scale`."""

    name: str
    look: Look
    points: Sequence[tuple[float, float]]
    scale: float = 1

    @property
    def x(self) -> list[float]:
        """Steps."""
        return [x for x, _ in self.points]

    @property
    def y(self) -> list[float]:
        """Scaled values."""
        return [self.scale * y for _, y in self.points]


@dataclass(frozen=True)
class Whisker:
    """One line of a dot-and-whisker plot; without low and high only dots."""

    name: str
    look: Look
    values: Sequence[float]
    low: float | None = None
    high: float | None = None


# Each tone is drawn in a unique colour, which is replaced by its CSS variable in the SVG's text. The first three are
# also in templates/report.mplstyle.
_TONES = (INK, MUTED, GRID, PAGE, "after", "before", "c1", "c2", "c3", "c4", "right", "wrong")
_COLOUR = {tone: f"#0{i:x}fe0{i:x}" for i, tone in enumerate(_TONES)}


def panel(
    key: str, title: str, lines: Sequence[Series], last: float, marks: Sequence[float] = (), zero: bool = False,
    xlabel: str = "rollout step",
) -> Markup:  # fmt: skip
    """Curves over steps 0 to `last`, one version for all widths, with axes aligned across panels.

    Looks without a marker are noisy curves: their running mean is drawn, for the first one also the raw values. marks:
    steps with a vertical line. zero: the y axis includes 0.
    """
    from matplotlib.ticker import FuncFormatter

    def draw(ax: Axes, _: float) -> None:
        for mark in marks:
            ax.axvline(mark, color=_COLOUR[MUTED], linewidth=0.8, linestyle=(0, (2, 2)))
        for i, line in reversed(list(enumerate(lines))):
            _curve(ax, line, first=not i)  # on top
        if zero:
            low, high = (f([0, *(y for s in lines for y in s.y)]) for f in (min, max))
            room = 0.06 * (high - low)
            ax.set_ylim(low - room if -low > room else 0, high + room)
        elif all(y >= 0 for s in lines for y in s.y):
            ax.set_ylim(bottom=max(0.0, ax.get_ylim()[0]))
        ax.set_xlim(0, last or 1)
        ax.locator_params(axis="x", nbins=6, integer=True, steps=(1, 2, 5, 10))
        ax.locator_params(axis="y", nbins=4, steps=(1, 2, 2.5, 5, 10))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}".replace("-", "\N{MINUS SIGN}")))
        ax.set_xlabel(xlabel)
        ax.grid(axis="y")

    return _panel(key, title, draw)


def _curve(ax: Axes, line: Series, first: bool) -> None:
    x, y, colour = line.x, line.y, _COLOUR[line.look.tone]
    style: dict[str, Any] = {"color": colour, "zorder": 3, "linewidth": 1.6 if first else 1.1}
    if line.look.dashed:
        style["linestyle"] = (0, (4, 2))
    if line.look.marker or len(x) == 1:
        ax.plot(x, y, **style, marker=line.look.marker or "o", markersize=4, clip_on=False)
        return
    x, y = thinned(x, y)
    if first:
        ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
    ax.plot(x, smooth(y), **style)


def bars(key: str, title: str, histogram: Mapping[str, Any], xlabel: str) -> Markup:
    """A histogram from launchers/run/spread.py, in the size of a panel."""
    from matplotlib.ticker import MaxNLocator

    low, high, counts = histogram["low"], histogram["high"], histogram["counts"]
    width = (high - low) / len(counts)

    def draw(ax: Axes, _: float) -> None:
        middles = [low + (at + 0.5) * width for at in range(len(counts))]
        ax.bar(middles, counts, 0.88 * width, color=_COLOUR["after"])
        ax.set_xlim(low, high)
        ax.set_xlabel(xlabel)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.grid(axis="y")

    return _panel(key, title, draw)


def _panel(key: str, title: str, draw: Draw) -> Markup:
    return Markup('<div class="plot">{}</div>').format(_svg(key, title, draw, *PANEL, edges=PANEL_EDGES))


def thinned(x: Sequence[float], y: Sequence[float], limit: int = 400) -> tuple[list[float], list[float]]:
    """At most `limit` points: means of groups of neighbouring points."""
    size = -(-len(x) // limit)
    runs = [slice(start, start + size) for start in range(0, len(x), size)]
    return [sum(x[run]) / len(x[run]) for run in runs], [sum(y[run]) / len(y[run]) for run in runs]


def smooth(y: Sequence[float], share: int = 12) -> list[float]:
    """Running mean over a window of 1/`share` of all points, smaller at the ends."""
    reach = len(y) // (2 * share)
    near = [y[max(0, i - reach) : i + reach + 1] for i in range(len(y))]
    return [sum(values) / len(values) for values in near]


def whiskers(
    key: str, title: str, groups: Sequence[tuple[str, Sequence[Whisker]]], xlabel: str, zero: bool = False
) -> Markup:
    """Dots with 95 % intervals, one line each, in named groups; with `zero`, a vertical line at zero."""
    lines = sum(len(group) for _, group in groups)
    heads = sum(1 for name, _ in groups if name)
    height = 16 * (lines + HEAD * heads) + 46

    def draw(ax: Axes, width: float) -> None:
        ticks: list[float] = []
        names: list[str] = []
        y = 0.0
        for head, group in groups:
            if head:
                ax.annotate(
                    _short(head, width), (0, y - 0.05), (2, 0), ("axes fraction", "data"), "offset points",
                    va="center", fontweight="bold", color=_COLOUR[INK],
                    bbox={"facecolor": _COLOUR[PAGE], "edgecolor": "none", "pad": 1},
                )  # fmt: skip
                y += 0.95
            for line in group:
                _whisker(ax, line, y)
                ticks.append(y)
                names.append(_short(line.name, width))
                y += 1
            y += HEAD - 0.95 if head else 0
        ax.set_yticks(ticks, names)
        ax.set_ylim(y - 0.4, -0.6)
        if zero:
            ax.axvline(0, color=_COLOUR[MUTED], linewidth=1.2)
        ax.set_xlabel(xlabel)
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)

    return _both(key, title, draw, (height, height))


def against_cost(
    key: str, points: Sequence[tuple[float, Whisker]], start: float | None, unit: str, ylabel: str
) -> Markup:
    """Scores with intervals against training cost. `start`: the score before training, drawn as a line."""

    def draw(ax: Axes, width: float) -> None:
        if start is not None:
            ax.axhline(start, color=_COLOUR[MUTED], linewidth=1, linestyle=(0, (4, 3)))
        for cost, point in points:
            if point.low is not None and point.high is not None:
                ax.plot([cost, cost], [point.low, point.high], color=_COLOUR[point.look.tone], linewidth=1.6)
            ax.plot([cost], point.values, **_marker(point.look))
        ax.set_xlim(0, 1.08 * max(cost for cost, _ in points) or 1)
        ax.set_xlabel(f"{unit} of training")
        ax.set_ylabel(ylabel)
        ax.grid(axis="y")

    return _both(key, f"{ylabel} over the cost of training", draw, (215, 190))


def _whisker(ax: Axes, line: Whisker, y: float) -> None:
    colour = _COLOUR[line.look.tone]
    if line.low is not None and line.high is not None:
        ax.plot([line.low, line.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
    ax.plot(line.values, [y] * len(line.values), **_marker(line.look))


def _marker(look: Look) -> dict[str, Any]:
    colour = _COLOUR[look.tone]
    return {
        "linestyle": "none",
        "marker": look.marker,
        "markersize": 5 if look.marker == "D" else 6,
        "markerfacecolor": _COLOUR[PAGE] if look.hollow else colour,
        "markeredgecolor": colour,
        "markeredgewidth": 1.4,
        "zorder": 4,
    }


def _short(text: str, width: float) -> str:
    text, limit = visible(text), 34 if width == WIDE else 15
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _both(key: str, title: str, draw: Draw, heights: tuple[float, float]) -> Markup:
    """The plot in both widths; the style sheet shows one of them."""
    drawn = (_svg(f"{key}-wide", title, draw, WIDE, heights[0]), _svg(f"{key}-narrow", title, draw, NARROW, heights[1]))
    return Markup('<figure class="plot"><div class="wide">{}</div><div class="narrow">{}</div></figure>').format(*drawn)


def _svg(key: str, title: str, draw: Draw, width: float, height: float, edges: tuple[float, ...] = ()) -> Markup:
    """edges: points left, right, below and above the axes; () uses matplotlib's layout."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(REPO / "templates" / "report.mplstyle", after_reset=True):  # ignore the user's matplotlibrc
        figure = Figure(figsize=(width / 72, height / 72), layout=None if edges else "constrained", frameon=False)
        axes = figure.add_subplot(facecolor="none")
        if edges:
            left, right, below, above = edges
            figure.subplots_adjust(left / width, below / height, 1 - right / width, 1 - above / height)
        draw(axes, width)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _page_svg(buffer.getvalue(), key, title)


def _page_svg(text: str, key: str, title: str) -> Markup:
    """Adapt matplotlib's SVG to the page: unique ids, the page's fonts and colours, no style sheet."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r"\bid=\"|url\(#|href=\"#", lambda m: m.group() + key + "-", text)
    for tone, colour in _COLOUR.items():
        text = text.replace(colour, f"var(--{tone})")
    head = f'<svg role="img" aria-label="{escape(title)}" '
    text = re.sub(r"^<svg (.*?)width=\"[^\"]*\" height=\"[^\"]*\"", lambda m: head + m.group(1), text, count=1)
    return Markup(text)  # noqa: S704  # matplotlib escapes text (tested with hostile names)
