"""When a training in verl ends early: the decision, what a resumed run knows, the end of the batches.

They need verl's environment: test_verl_environment.py runs them there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launchers.plugins.verl.stopping import Batches, Rules, Stopping, Verdict

LOSS = {"name": "loss", "unit": "nats", "higher_is_better": False}


def verdict(rules: Rules, *points: float, shares: tuple[float, ...] = ()) -> str | None:
    """For validations at steps 0, 10, 20 …"""
    found = rules.verdict({10 * i: value for i, value in enumerate(points)}, dict(enumerate(shares, 1)))
    return found and found.why


@pytest.mark.parametrize(
    ("points", "stops"),
    [
        ((40,), False),
        ((40, 40), False),
        ((40, 40, 40), True),
        ((40, 40.4, 40.4), True),  # a gain below min_gain is none
        ((40, 40.3, 40.6), False),  # 0.6 above the best before the two
        ((40, 39, 40.5), False),
        ((40, 50, 49, 51), False),
        ((40, 50, 49, 48), True),
        ((40, 39, 38), True),
    ],
)
def test_patience(points: tuple[float, ...], stops: bool) -> None:
    assert (verdict(Rules(patience=2, min_gain=0.5), *points) is not None) is stops


def test_a_gain_of_nothing_is_no_gain() -> None:
    assert verdict(Rules(patience=2, min_gain=0), 40, 40, 40)
    assert not verdict(Rules(patience=2, min_gain=0), 40, 40, 40.1)


def test_collapse_says_from_where_to_where() -> None:
    rules = Rules(collapse=20)
    assert not verdict(rules, 41.2, 61.2, 41.2)
    found = rules.verdict({0: 41.2, 40: 61.2, 50: 60.0, 60: 35.0}, {})
    assert found is not None
    assert found.best_step == 40
    assert found.why == (
        "accuracy went from 61.2 to 35.0 % in validation, more than stop.collapse 20 worse than the best (step 40)"
    )
    assert not verdict(rules, 61.2, 35.0, 60.0)  # it has come back


def test_a_metric_of_which_less_is_better() -> None:
    rules = Rules(patience=2, min_gain=0.1, collapse=2, metric=LOSS)
    assert not verdict(rules, 3.0, 2.5, 2.2, 2.0)
    assert verdict(rules, 2.0, 2.5, 3.0)
    found = rules.verdict({0: 2.0, 10: 1.5, 20: 3.75}, {})
    why = "loss went from 1.5000 to 3.7500 nats in validation, more than stop.collapse 2 worse than the best (step 10)"
    assert found == Verdict(why, 10)


@pytest.mark.parametrize(
    ("shares", "stops"),
    [
        ((1, 1), False),
        ((1, 1, 1), True),
        ((1, 1, 0.9), False),
        ((0, 1, 1, 1), True),
        ((1, 0.5, 1, 1), False),
        ((), False),
    ],
)
def test_idle(shares: tuple[float, ...], stops: bool) -> None:
    assert (verdict(Rules(idle=3), shares=shares) is not None) is stops


def test_without_rules_nothing_stops() -> None:
    assert not verdict(Rules(), 90, *[0] * 50, shares=(1,) * 50)


def test_whatever_the_curve() -> None:
    """Never while each validation gains min_gain; with patience always within that many validations of the best."""
    draw = random.Random(5)
    for _ in range(2000):
        patience, gain = draw.randint(1, 6), draw.choice([0.0, 0.5, 2.0])
        rules = Rules(patience=patience, min_gain=gain, collapse=draw.choice([None, 10.0]))
        rising = [10.0]
        for _ in range(draw.randint(0, 20)):
            rising.append(rising[-1] + gain + draw.choice([0.001, 1.0, 3.0]))
        assert not verdict(rules, *rising)
        best = max(rising)
        falling = [min(best, best + draw.uniform(-30, 0)) for _ in range(patience)]
        assert verdict(rules, *rising, *falling)
        assert not verdict(Rules(patience=patience, min_gain=gain), *rising, *falling[:-1])


def trainer(step: int, total: int = 100) -> Any:
    """The parts of verl's trainer that a decision touches; calls are noted in `did`."""
    did: list[str] = []
    return SimpleNamespace(
        global_steps=step, total_training_steps=total, did=did,
        checkpoint_manager=SimpleNamespace(sleep_replicas=lambda: did.append("sleep")),
        _save_checkpoint=lambda: did.append("save"),
    )  # fmt: skip


def in_folder(folder: Path, **rules: Any) -> Stopping:
    (folder / "stop.json").write_text(json.dumps(rules))
    stopping = Stopping(folder)
    stopping.start()
    return stopping


def validation(points: float) -> dict[str, float]:
    return {
        "val-core/a/acc/mean@4": (points - 10) / 100, "val-core/b/acc/mean@4": (points + 10) / 100,
        "val-core/b/acc/best@4/mean": 1.0, "val-aux/b/score/mean@4": 7.0, "val-aux/num_turns/mean": 2.0,
    }  # fmt: skip


def test_accuracy_is_the_mean_over_benchmarks_in_points(tmp_path: Path) -> None:
    stopping = in_folder(tmp_path, collapse=5)
    stopping.validated(0, validation(50))
    stopping.validated(10, validation(40))
    stopping.validated(10, {"val-aux/num_turns/mean": 2.0})
    assert json.loads((tmp_path / "validations.json").read_text())["validations"] == {
        "0": pytest.approx(50), "10": pytest.approx(40)
    }  # fmt: skip
    done = trainer(10)
    stopping.step_ended(done)
    assert done.did == ["sleep", "save"]
    told = json.loads((tmp_path / "stopped.json").read_text())
    assert (told["step"], told["best_step"]) == (10, 0)


def test_a_metric_in_its_own_unit(tmp_path: Path) -> None:
    stopping = in_folder(tmp_path, patience=1, min_gain=0.1, metric=LOSS)
    for step, loss in ((0, 2.0), (10, 1.8)):
        stopping.validated(step, {"val-core/a/reward/mean@1": loss})
    assert json.loads((tmp_path / "validations.json").read_text())["validations"] == {"0": 2.0, "10": 1.8}
    stopping.step_ended(trainer(10))
    assert not stopping.stopped
    stopping.validated(20, {"val-core/a/reward/mean@1": 1.75})
    stopping.step_ended(trainer(20))
    assert json.loads((tmp_path / "stopped.json").read_text())["best_step"] == 20


def test_a_saved_step_is_not_saved_again(tmp_path: Path) -> None:
    stopping = in_folder(tmp_path, idle=1)
    stopping.saved(7)
    stopping.scored(1.0)
    done = trainer(7)
    stopping.step_ended(done)
    assert done.did == []
    assert json.loads((tmp_path / "stopped.json").read_text()) == {
        "step": 7, "why": "no group's rewards have differed since step 7 (stop.idle 1): nothing to learn"
    }  # fmt: skip


def test_the_planned_last_step_is_no_early_end(tmp_path: Path) -> None:
    stopping = in_folder(tmp_path, idle=1)
    stopping.scored(1.0)
    done = trainer(100)
    stopping.step_ended(done)
    assert not stopping.stopped
    assert done.did == []
    assert not (tmp_path / "stopped.json").exists()


def test_a_job_about_to_end_saves_its_step_and_has_not_ended_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN", str(tmp_path))
    stopping, last, early = in_folder(tmp_path, idle=2), trainer(100), trainer(3)
    stopping.step_ended(early)
    assert (stopping.stopped, early.did) == (False, [])
    (tmp_path / "stop").touch()
    stopping.step_ended(last)
    assert (stopping.stopped, last.did) == (False, [])
    stopping.step_ended(early)
    assert (stopping.stopped, early.did) == (True, ["sleep", "save"])
    assert not (tmp_path / "stopped.json").exists()


def test_a_resumed_run_knows_what_came_before_its_checkpoint_and_nothing_after(tmp_path: Path) -> None:
    first = in_folder(tmp_path, patience=3)
    for step in (0, 10, 20):
        first.validated(step, validation(50))
    # killed after step 20, resumed from 10: validation 20 is to be had again
    resumed = in_folder(tmp_path, patience=2)
    resumed.resumed(10)
    resumed.validated(10, validation(50))  # verl validates where it takes up
    resumed.step_ended(trainer(19))
    assert not resumed.stopped
    resumed.validated(20, validation(50))
    resumed.step_ended(trainer(20))
    assert resumed.stopped  # 10 and 20 did not rise above 0, which this attempt has not seen


def test_idle_steps_count_over_a_resume(tmp_path: Path) -> None:
    first = in_folder(tmp_path, idle=3)
    for step in (1, 2):
        first.scored(1.0)
        first.step_ended(trainer(step))
    for dropped, stops in ((1, False), (2, True)):
        resumed = in_folder(tmp_path, idle=3)
        resumed.resumed(dropped)
        resumed.scored(1.0)
        resumed.step_ended(trainer(dropped + 1))
        assert resumed.stopped is stops


def test_a_new_run_in_the_folder_starts_from_nothing(tmp_path: Path) -> None:
    first = in_folder(tmp_path, idle=1)
    first.scored(1.0)
    first.step_ended(trainer(1))
    assert (tmp_path / "stopped.json").exists()
    again = in_folder(tmp_path)
    again.resumed(0)
    again.step_ended(trainer(1))
    assert not (tmp_path / "stopped.json").exists()


@pytest.mark.parametrize(
    ("shares", "by_group", "noted"),
    [((1.0, 1.0), True, True), ((1.0, 0.5), True, False), ((1.0, 1.0), False, False), ((None, None), True, False)],
)
def test_a_run_that_learned_nothing_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shares: tuple[float, ...], by_group: bool, noted: bool
) -> None:
    (tmp_path / "notes.json").write_text('["from elsewhere", "learned nothing: in all 1 steps …"]')
    stopping = Stopping(tmp_path)  # no stop.json
    for step, share in enumerate(shares, 1):
        stopping.scored(share)
        stopping.step_ended(trainer(step))
    stopping.ended(by_group)
    line = "learned nothing: in all 2 steps the rewards of every group were equal"
    assert json.loads((tmp_path / "notes.json").read_text()) == ["from elsewhere", *([line] if noted else [])]
    assert capsys.readouterr().out == (f"{line}\n" if noted else "")


class Loader:
    """Of three batches; counts how often it was begun."""

    begun = 0

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        self.begun += 1
        return iter((1, 2, 3))

    def state_dict(self) -> dict[str, int]:
        return {"begun": self.begun}


def test_there_are_no_more_batches_once_it_is_to_stop(tmp_path: Path) -> None:
    stopping, loader = Stopping(tmp_path), Loader()
    batches = Batches(loader, stopping)
    assert (len(batches), list(batches), batches.state_dict()) == (3, [1, 2, 3], {"begun": 1})
    seen = []
    for _ in range(1000):  # verl's epochs
        for batch in batches:
            seen.append(batch)
            stopping.stopped = len(seen) == 5
    assert seen == [1, 2, 3, 1, 2]
    assert loader.begun == 3
