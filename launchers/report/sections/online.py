"""The report's part on online RL: curves as small multiples, what was optimised, outcomes, where a step's time goes.

All of it is drawn from `Results.online` (report/curves.py) and the resolved recipe. Nothing is made up for what a
run did not log: that panel or line is left out.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from launchers.report import plots
from launchers.report.curves import WAITED, Point, Training
from launchers.report.format import clock, count, number
from launchers.report.plots import Look, Series
from launchers.report.results import Json, Results, label
from launchers.report.sections import thoughts
from launchers.report.sections.training import ends

LINE, DASHES = "━", "┅"  # as the legend shows a curve
TONES = ("after", "c1", "c2", "c3", "c4", "before")

FEW_EFFECTIVE = 0.5  # share of the completions below which the report warns
PARTS_OF_A_STEP = (  # name, tone, the trainer's timers
    ("rollout", "after", ("gen",)),
    ("reward", "c3", ("reward",)),
    ("log-probabilities", "c2", ("old_log_prob", "ref", "values")),
    ("update", "c1", ("update_actor", "update_critic")),
    ("weights to the rollout", "c4", ("update_weights",)),
    ("checkpoint", "right", ("save_checkpoint",)),
    ("validation", "before", ("testing",)),
)


def section(run: Results, looks: dict[str, Look]) -> Json | None:
    """What the template shows of online RL; None when there is no log of any. looks: of each training, by name."""
    if not run.online:
        return None
    own = run.online.get("train")
    drawn, flat = panels(run, looks)
    return {
        "runs": [(label(name), looks[name], _from_to(training)) for name, training in run.online.items()],
        "panels": drawn,
        "flat": flat,
        "smoothed": max((len(t.first_of("critic/score/mean")) for t in run.online.values()), default=0) >= 24,
        "resumed": [f"{step:g}" for step in own.resumed] if own else [],
        "outcomes": outcomes(own) if own else [],
        "time": step_time(own) if own else None,
    }


def notes(run: Results) -> list[str]:
    """Sentences for the top of the page: trainings that ended early or learned nothing."""
    lines = []
    for name, training in run.online.items():
        whose = "Training" if name == "train" else f"Training of the control {name}"
        if training.stopped:
            stop = training.stopped
            best = f" Its best validation was at step {stop['best_step']}." if stop.get("best_step") else ""
            lines.append(f"{whose} ended early at step {stop.get('step')}: {stop.get('why')}.{best}")
        lines += [f"{whose} {note}." for note in training.notes]
        sizes = [size for _, size in training.first_of("sampler/effective_sample_size")]
        if sizes and statistics.median(sizes) < FEW_EFFECTIVE:
            lines.append(
                f"{whose}: sampler and trainer disagree; the effective sample size is "
                f"{100 * statistics.median(sizes):.0f} % in the median of the steps. Set algorithm.correction: token, "
                "or let both compute in one precision."
            )
    return lines


def _from_to(training: Training) -> str:
    """First and last tenth of a training, in a line."""
    parts = [f"{count(training.last)} steps"]
    for name, curve, scale, digits in (
        ("reward", training.first_of("critic/score/mean", "critic/rewards/mean"), 1, 2),
        ("training accuracy", training.first_of("accuracy/train"), 100, 1),
    ):
        if curve:
            first, last = (scale * value for value in ends(curve, 10))
            parts.append(f"{name} {number(first, digits)} → {number(last, digits)}{' %' * (scale == 100)}")
    for task, curve in training.validations().items():
        (_, first), (_, last) = curve[0], curve[-1]
        parts.append(f"{task} {number(100 * first)} → {number(100 * last)} %")
    return ", ".join(parts)


def panels(run: Results, looks: dict[str, Look]) -> tuple[list[Json], list[str]]:
    """Small multiples that share their x axis, and the titles of those that are 0 in every step and not drawn."""
    drawn: list[Json] = []
    flat: list[str] = []
    own = run.online.get("train", Training())
    last = max(training.last for training in run.online.values())

    def add(title: str, unit: str, lines: Sequence[Series], zero: bool = False, keys: bool = False) -> None:
        lines = [line for line in lines if line.x]
        if not lines:
            return
        if zero and not any(y for line in lines for y in line.y):
            flat.append(title.lower())
            return
        plot = plots.panel(f"rl{len(drawn)}", f"{title} over rollout steps", lines, last, own.resumed, zero)
        legend = [(line.name, line.look) for line in lines] if keys else []
        drawn.append({"title": title, "unit": unit, "legend": legend, "plot": plot})

    def runs(*metrics: str, scale: float = 1) -> list[Series]:
        return [_series(name, _curve(looks[name]), t.first_of(*metrics), scale) for name, t in run.online.items()]

    recipe = run.recipe
    algorithm, limits, train = recipe.get("algorithm") or {}, recipe.get("rollout") or {}, recipe.get("train") or {}
    summed = algorithm.get("loss") == "dr_grpo"  # then means over tokens are sums over a constant
    for panel in accuracy(run, looks):
        add(*panel)
    for task in dict.fromkeys(task for t in run.online.values() for task in t.validations("reward")):
        series = [_series(n, looks[n], t.validations("reward").get(task, [])) for n, t in run.online.items()]
        add(f"Reward on {task}", "mean, validation", series)
    add(
        "Second judge",
        "mean, the validation's samples",
        [_series(name, looks[name], training.first_of("second_judge")) for name, training in run.online.items()],
    )
    reward = (run.recipe.get("reward") or {}).get("name")
    unit = f"{reward}, mean of a step's completions" if reward else "mean of a step's completions"
    add("Reward", unit, runs("critic/score/mean", "critic/rewards/mean"))
    per_token = "nats, summed as in the loss" if summed else "nats per token"
    unit = "nats per token" if algorithm.get("kl") == "reward" else per_token
    add("KL to the initial model", unit, runs("actor/kl_loss", "actor/reward_kl_penalty"), zero=True)
    entropy = "nats per token" if "actor/entropy" in own.curves else per_token
    add("Entropy", entropy, runs("actor/entropy", "actor/entropy_loss"), zero=True)
    add("Response length", "tokens", lengths(run, looks), keys=True)
    add("Reward against length", "correlation of a step's completions", runs("reward/length_correlation"))
    for title, unit, curves in thoughts.curves(run):
        add(title, unit, [_series(name, _tone(i, "", LINE), points) for i, (name, points) in enumerate(curves.items())],
            keys=len(curves) > 1)  # fmt: skip
    tokens = limits.get("max_response_length")
    reached = f"% of completions, at {count(tokens)} tokens" if tokens else "% of completions"
    add("Truncated", reached, runs("outcome/at_limit", "response_length/clip_ratio", scale=100), zero=True)
    add("Groups without variance", "% of groups, all scores equal",
        runs("groups/zero_variance", scale=100), zero=True)  # fmt: skip
    add("Sampler against trainer", "mean difference of log-probabilities, nats", runs("sampler/log_prob_difference"))
    add("Effective sample size", "% of completions", runs("sampler/effective_sample_size", scale=100))
    norm = train.get("max_grad_norm")
    add("Gradient norm", f"before clipping at {norm:g}" if norm else "", runs("actor/grad_norm"), zero=True)
    add("Clipped tokens", "% whose ratio left its bounds", runs("actor/pg_clipfrac", scale=100), zero=True)
    add("Critic's loss", "", runs("critic/vf_loss"), zero=True)
    add("Parts of the reward", "mean of a step's completions", reward_parts(run, own), keys=True)
    return drawn, flat


def _series(name: str, look: Look, points: Sequence[Point], scale: float = 1) -> Series:
    return Series(label(name), look, [x for x, _ in points], [scale * y for _, y in points])


def _curve(look: Look) -> Look:
    return Look(look.tone, "", LINE)


def accuracy(run: Results, looks: dict[str, Look]) -> list[tuple[str, str, list[Series], bool, bool]]:
    """Training accuracy and each benchmark's validations: together in one panel, or with controls in one each."""
    training = [_series(n, _curve(looks[n]), t.first_of("accuracy/train"), 100) for n, t in run.online.items()]
    tasks = list(dict.fromkeys(task for t in run.online.values() for task in t.validations()))
    if list(run.online) == ["train"]:
        curves = run.online["train"].validations()
        dots = [_series(task, _tone(i, "o", "●", 1), curves[task], 100) for i, task in enumerate(tasks)]
        return [
            ("Accuracy", "%", [dataclasses.replace(line, name="training") for line in training] + dots, False, True)
        ]
    panels_of = [("Accuracy on training prompts", "%", training, False, False)]
    for task in tasks:
        lines = [_series(n, looks[n], t.validations().get(task, []), 100) for n, t in run.online.items()]
        panels_of.append((f"Accuracy on {task}", "%, validation", lines, False, False))
    return panels_of


def _tone(i: int, marker: str, glyph: str, first: int = 0) -> Look:
    """The i-th of many looks: a colour each, and dashes when they begin again."""
    tones = TONES[first:]
    dashed = i >= len(tones)
    return Look(tones[i % len(tones)], marker, DASHES if dashed and not marker else glyph, dashed=dashed)


def lengths(run: Results, looks: dict[str, Look]) -> list[Series]:
    """Mean tokens: of this run also of right and of wrong completions."""
    series = [
        _series(n, _curve(looks[n]), t.first_of("response_length/mean")) for n, t in run.online.items() if n != "train"
    ]
    if own := run.online.get("train"):
        parts = {"all": _curve(looks["train"])} | {p: Look(p, "", DASHES, dashed=True) for p in ("right", "wrong")}
        curves = {part: own.first_of(f"response_length/{'mean' if part == 'all' else part}") for part in parts}
        series = [_series(part, look, curves[part]) for part, look in parts.items()] + series
    return series


def reward_parts(run: Results, own: Training) -> list[Series]:
    """This run's parts of a combined reward, with their weights."""
    asked = ((run.recipe.get("reward") or {}).get("params") or {}).get("parts") or []
    weights = {p.get("name") or p.get("reward"): p.get("weight", 1) for p in asked if isinstance(p, dict)}
    parts = []
    for i, (part, points) in enumerate(own.below("reward/part/").items()):
        weight = weights.get(part)
        name = part if weight is None else f"{part} × {weight:g}" if weight else f"{part}, only watched"
        parts.append(_series(name, _tone(i, "", LINE), points))
    return parts if len(parts) > 1 else []


def outcomes(own: Training) -> list[tuple[str, float, float]]:
    """(outcome, percent in the first tenth of the training, percent in the last), those that never came left out."""
    shares = []
    for name, curve in own.below("outcome/").items():
        if name != "at_limit" and any(share for _, share in curve):
            first, last = ends(curve, 10)
            shares.append((name, 100 * first, 100 * last))
    return sorted(shares, key=lambda row: (-row[2], -row[1], row[0]))


def step_time(own: Training) -> Json | None:
    """Parts of a step: seconds in the median of the steps that have it, and percent of all steps' time together."""
    timers = {name: dict(points) for name, points in own.below("timing_s/").items()}
    if not timers.get("step"):
        return None
    testing = timers.get("testing", {})  # the one timer outside the step
    totals = {at: seconds + testing.get(at, 0) for at, seconds in timers["step"].items()}
    spent = sum(totals.values()) or 1
    rows: list[Json] = []
    for name, tone, keys in PARTS_OF_A_STEP:
        taken = {at: sum(timers.get(key, {}).get(at, 0) for key in keys) for at in totals}
        seconds = [value for value in taken.values() if value > 0]
        if seconds:
            rows.append(_row(name, tone, seconds, spent, len(totals)))
        totals = {at: left - taken[at] for at, left in totals.items()}
    rows.append(_row("the rest", "muted", [max(0.0, left) for left in totals.values()], spent, len(totals)))
    waited = own.curves.get(WAITED)
    speed = own.curves.get("perf/throughput")
    return {
        "rows": rows,
        "median": clock(statistics.median(timers["step"].values())),
        "speed": count(statistics.median(y for _, y in speed)) if speed else "",
        "waited": _seconds(statistics.median(y for _, y in waited)) if waited else "",
    }


def _row(name: str, tone: str, seconds: Sequence[float], spent: float, steps: int) -> Json:
    return {
        "name": name, "look": Look(tone, "s", "■"), "median": _seconds(statistics.median(seconds)),
        "share": 100 * sum(seconds) / spent, "times": len(seconds), "every": len(seconds) == steps,
    }  # fmt: skip


def _seconds(value: float) -> str:
    """0.0312 -> 0.031; 4.213 -> 4.21; 812 -> 812."""
    if value < 0.0005:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.0995 else f"{value:.3g}" if value < 1000 else count(value)
