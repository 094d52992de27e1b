"""The report's section on online RL: curves as small multiples, outcomes, and the time of a step by part.

Everything comes from `Results.online` (report/curves.py) and the resolved recipe. Panels and lines without logged
values are omitted.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from launchers.report import plots
from launchers.report.curves import WAITED, Measure, Point, Training
from launchers.report.format import clock, count
from launchers.report.plots import Look, Series
from launchers.report.results import Json, Results, label
from launchers.report.sections import rollouts
from launchers.report.sections.training import arrow, ends

LINE, DASHES = "━", "┅"  # glyphs of curves in legends
TONES = ("after", "c1", "c2", "c3", "c4", "before")

FEW_EFFECTIVE = 0.5  # effective sample size, as a fraction of the completions, below which the report warns
PARTS_OF_A_STEP = (  # name, tone, the trainer's timers
    ("rollout", "after", ("gen",)),
    ("reward", "c3", ("reward",)),
    ("log-probabilities", "c2", ("old_log_prob", "ref", "values")),
    ("update", "c1", ("update_actor", "update_critic")),
    ("weights to the rollout", "c4", ("update_weights",)),
    ("checkpoint", "right", ("save_checkpoint",)),
    ("validation", "before", ("testing",)),
)


@dataclass(frozen=True)
class Panel:
    """One of the small multiples. zero: its y axis includes 0, and it is omitted if all values are 0. keys: it has a
    legend."""

    title: str
    unit: str
    lines: Sequence[Series]
    zero: bool = False
    keys: bool = False


def section(run: Results) -> Json | None:
    """The template's values for online RL; None without a log."""
    if not run.online:
        return None
    own = run.online.get("train")
    drawn, flat = panels(run)
    return {
        "runs": [(label(name), run.look(name), _from_to(training)) for name, training in run.online.items()],
        "panels": drawn,
        "flat": flat,
        "smoothed": max((len(t.first_of("critic/score/mean")) for t in run.online.values()), default=0) >= 24,
        "resumed": [f"{step:g}" for step in own.resumed] if own else [],
        "outcomes": outcomes(own) if own else [],
        "time": step_time(own) if own else None,
    }


def notes(run: Results) -> list[str]:
    """Sentences for the top of the page, such as early stops and rollout/trainer mismatch."""
    lines = []
    for name, training in run.online.items():
        whose = "Training" if name == "train" else f"Training of the control {name}"
        if stop := training.stopped:
            best = f" Its best validation was at step {stop['best_step']}." if stop.get("best_step") else ""
            lines.append(f"{whose} ended early at step {stop.get('step')}: {stop.get('why')}.{best}")
        lines += [f"{whose} {note}." for note in training.notes]
        sizes = [size for _, size in training.first_of("sampler/effective_sample_size")]
        if sizes and statistics.median(sizes) < FEW_EFFECTIVE:
            lines.append(
                f"{whose}: log-probabilities of rollout engine and trainer differ; the median effective sample size is "
                f"{100 * statistics.median(sizes):.0f} %. Set algorithm.correction: token, or use the same precision "
                "for both."
            )
    return lines


def _from_to(training: Training) -> str:
    """Means over the first and the last tenth of a training, as text."""
    parts = [f"{count(training.last)} steps"]
    if rewards := training.first_of("critic/score/mean", "critic/rewards/mean"):
        parts.append(arrow("reward", ends(rewards, 10), 2))
    if shares := training.first_of("accuracy/train"):
        parts.append(arrow("training accuracy", ends(shares, 10), percent=True))
    validations = training.validations().items()
    parts += [arrow(task, (curve[0][1], curve[-1][1]), percent=True) for task, curve in validations]
    return ", ".join(parts)


def panels(run: Results) -> tuple[list[Json], list[str]]:
    """Small multiples with a shared x axis, and the titles of panels omitted because they are 0 in every step."""
    drawn: list[Json] = []
    flat: list[str] = []
    resumed = run.online.get("train", Training()).resumed
    last = max(training.last for training in run.online.values())
    for panel in (*_validated(run), *_rewarded(run), *_optimised(run)):
        lines = [line for line in panel.lines if line.points]
        if not lines:
            continue
        if panel.zero and not any(y for line in lines for y in line.y):
            flat.append(panel.title.lower())
            continue
        title = f"{panel.title} over rollout steps"
        plot = plots.panel(f"rl{len(drawn)}", title, lines, last, resumed, panel.zero)
        legend = [(line.name, line.look) for line in lines] if panel.keys else []
        drawn.append({"title": panel.title, "unit": panel.unit, "legend": legend, "plot": plot})
    return drawn, flat


def _dots(run: Results, curves: Mapping[str, Sequence[Point]], scale: float = 1) -> list[Series]:
    """Curves with few points, drawn as dots, by training."""
    return [Series(label(name), run.look(name), points, scale) for name, points in curves.items()]


def _steps(run: Results, *metrics: str, scale: float = 1) -> list[Series]:
    """For each training the curve of the first of these metrics that it logged."""
    lines = _dots(run, {name: training.first_of(*metrics) for name, training in run.online.items()}, scale)
    return [replace(line, look=Look(line.look.tone, "", LINE)) for line in lines]


def _validated(run: Results) -> Iterator[Panel]:
    """Training accuracy and validations, in one panel, or with controls in one panel per benchmark."""
    training = _steps(run, "accuracy/train", scale=100)
    if list(run.online) == ["train"]:
        curves = run.online["train"].validations().items()
        dots = [Series(task, _tone(i, "o", "●", 1), points, 100) for i, (task, points) in enumerate(curves)]
        yield Panel("Accuracy", "%", [replace(training[0], name="training"), *dots], keys=True)
    else:
        yield Panel("Accuracy on training prompts", "%", training)
        for task, lines in _validations(run, "acc", 100):
            yield Panel(f"Accuracy on {task}", "%, validation", lines)
    for task, lines in _validations(run, "reward"):
        yield Panel(f"Reward on {task}", "mean, validation", lines)
    judged = {name: training.first_of("second_judge") for name, training in run.online.items()}
    yield Panel("Second judge", "mean, the validation's samples", _dots(run, judged))


def _validations(run: Results, measure: Measure, scale: float = 1) -> Iterator[tuple[str, list[Series]]]:
    """For each benchmark one line per training."""
    of = {name: training.validations(measure) for name, training in run.online.items()}
    for task in dict.fromkeys(task for curves in of.values() for task in curves):
        yield task, _dots(run, {name: curves.get(task, []) for name, curves in of.items()}, scale)


def _rewarded(run: Results) -> Iterator[Panel]:
    """Panels of the reward, KL, entropy and the completions."""
    algorithm, reward = run.recipe.get("algorithm") or {}, run.recipe.get("reward") or {}
    own = run.online.get("train", Training())
    unit = ", ".join(filter(None, (reward.get("name"), "mean of a step's completions")))
    yield Panel("Reward", unit, _steps(run, "critic/score/mean", "critic/rewards/mean"))
    summed = algorithm.get("loss") == "dr_grpo"  # its token "means" are sums divided by a constant
    per_token = "nats, summed as in the loss" if summed else "nats per token"
    unit = "nats per token" if algorithm.get("kl") == "reward" else per_token
    yield Panel("KL to the initial model", unit, _steps(run, "actor/kl_loss", "actor/reward_kl_penalty"), zero=True)
    unit = "nats per token" if "actor/entropy" in own.curves else per_token
    yield Panel("Entropy", unit, _steps(run, "actor/entropy", "actor/entropy_loss"), zero=True)
    yield Panel("Response length", "tokens", lengths(run), keys=True)
    correlated = _steps(run, "reward/length_correlation")
    yield Panel("Reward against length", "correlation of a step's completions", correlated)
    for title, unit, curves in rollouts.curves(run):
        lines = [Series(part, _tone(i, "", LINE), points) for i, (part, points) in enumerate(curves.items())]
        yield Panel(title, unit, lines, keys=len(curves) > 1)
    tokens = (run.recipe.get("rollout") or {}).get("max_response_length")
    unit = f"% of completions, at {count(tokens)} tokens" if tokens else "% of completions"
    truncated = _steps(run, "outcome/at_limit", "response_length/clip_ratio", scale=100)
    yield Panel("Truncated", unit, truncated, zero=True)


def _optimised(run: Results) -> Iterator[Panel]:
    """Panels of the optimisation."""
    norm = (run.recipe.get("train") or {}).get("max_grad_norm")
    for title, unit, metric, scale, zero in (
        ("Groups without variance", "% of groups, all scores equal", "groups/zero_variance", 100, True),
        (
            "Rollout engine vs. trainer",
            "mean difference of log-probabilities, nats",
            "sampler/log_prob_difference",
            1,
            False,
        ),
        ("Effective sample size", "% of completions", "sampler/effective_sample_size", 100, False),
        ("Gradient norm", f"before clipping at {norm:g}" if norm else "", "actor/grad_norm", 1, True),
        ("Clipped tokens", "% with a clipped ratio", "actor/pg_clipfrac", 100, True),
        ("Critic loss", "", "critic/vf_loss", 1, True),
    ):
        yield Panel(title, unit, _steps(run, metric, scale=scale), zero)
    yield Panel("Reward components", "mean of a step's completions", reward_parts(run), keys=True)


def _tone(i: int, marker: str, glyph: str, first: int = 0) -> Look:
    """The i-th look: cycling through colours, dashed after the first cycle."""
    tones = TONES[first:]
    dashed = i >= len(tones)
    return Look(tones[i % len(tones)], marker, DASHES if dashed and not marker else glyph, dashed=dashed)


def lengths(run: Results) -> list[Series]:
    """Mean tokens per completion; for this run, which comes first, also of correct and of wrong completions."""
    means, own = _steps(run, "response_length/mean"), run.online.get("train")
    if own is None:
        return means
    looks = {part: Look(part, "", DASHES, dashed=True) for part in ("right", "wrong")}
    parts = [Series(part, look, own.first_of(f"response_length/{part}")) for part, look in looks.items()]
    return [replace(means[0], name="all"), *parts, *means[1:]]


def reward_parts(run: Results) -> list[Series]:
    """This run's components of a combined reward, with their weights."""
    given = ((run.recipe.get("reward") or {}).get("params") or {}).get("parts") or []
    weights = {p.get("name") or p.get("reward"): p.get("weight", 1) for p in given if isinstance(p, dict)}
    parts = []
    for i, (part, points) in enumerate(run.online.get("train", Training()).below("reward/part/").items()):
        weight = weights.get(part)
        name = part if weight is None else f"{part} × {weight:g}" if weight else f"{part}, weight 0"
        parts.append(Series(name, _tone(i, "", LINE), points))
    return parts if len(parts) > 1 else []


def outcomes(own: Training) -> list[tuple[str, float, float]]:
    """(outcome, percent in the first tenth of the training, percent in the last), without those that never occurred."""
    shares = []
    for name, curve in own.below("outcome/").items():
        if name != "at_limit" and any(share for _, share in curve):
            first, last = ends(curve, 10)
            shares.append((name, 100 * first, 100 * last))
    return sorted(shares, key=lambda row: (-row[2], -row[1], row[0]))


def step_time(own: Training) -> Json | None:
    """Parts of a step: median seconds over the steps that have the part, and percent of the total time."""
    timers = {name: dict(points) for name, points in own.below("timing_s/").items()}
    if not timers.get("step"):
        return None
    testing = timers.get("testing", {})  # the only timer outside the step
    totals = {at: seconds + testing.get(at, 0) for at, seconds in timers["step"].items()}
    spent = sum(totals.values()) or 1
    parts = []
    for name, tone, keys in PARTS_OF_A_STEP:
        taken = {at: sum(timers.get(key, {}).get(at, 0) for key in keys) for at in totals}
        parts.append((name, tone, [value for value in taken.values() if value > 0]))
        totals = {at: left - taken[at] for at, left in totals.items()}
    parts.append(("other", "muted", [max(0.0, left) for left in totals.values()]))
    waited, speed = own.curves.get(WAITED), own.curves.get("perf/throughput")
    return {
        "rows": [
            {"name": name, "look": Look(tone, "s", "■"), "median": _seconds(statistics.median(seconds)),
             "share": 100 * sum(seconds) / spent, "times": len(seconds), "every": len(seconds) == len(totals)}
            for name, tone, seconds in parts
            if seconds
        ],
        "median": clock(statistics.median(timers["step"].values())),
        "speed": count(statistics.median(y for _, y in speed)) if speed else "",
        "waited": _seconds(statistics.median(y for _, y in waited)) if waited else "",
    }  # fmt: skip


def _seconds(value: float) -> str:
    """0.0312 -> 0.031; 4.213 -> 4.21; 812 -> 812."""
    if value < 0.0005:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.0995 else f"{value:.3g}" if value < 1000 else count(value)
