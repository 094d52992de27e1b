"""A study's numbers and its page, from a made-up folder whose figures are known."""

from __future__ import annotations

import json
import re

import pytest

from launchers.study import page as study_report
from launchers.study.results import Numbers, training_cost
from tests.launchers.made_up_run import HOSTILE, put
from tests.launchers.made_up_study import cell, make_run, make_study
from tests.launchers.test_report import Outline

WHICH = {"ask": "Which is best?", "compare": ["poor", "rich", "twin"], "measure": "accuracy"}
CARRIES = {"ask": "Does it carry over?", "compare": ["poor", "rich"], "measure": "untrained"}


@pytest.fixture
def study(tmp_path):
    """poor learns level 2 only; rich starts from poor's model and learns both; twin is as good at half the price."""
    cells = {"poor": cell(), "rich": cell(model_of="poor"), "twin": cell(recipe="f/other")}
    record = make_study(tmp_path, cells, [WHICH, CARRIES])
    for seed in range(3):
        make_run(tmp_path / f"runs/0-{seed}", {"2": 3, "3": 1}, 100)
        make_run(tmp_path / f"runs/1-{seed}", {"2": 4, "3": 3}, 300, before=None)
        make_run(tmp_path / f"runs/2-{seed}", {"2": 4, "3": 3}, 200)
    return tmp_path, record


def test_numbers_by_hand(study):
    numbers = Numbers(study[0])
    assert len(numbers.questions) == 40
    assert numbers.k == 4
    # 20 questions at 3/4 and 20 at 1/4 make 50 %; one right of four is found by four samples
    assert numbers.score("poor").mean == 50
    assert numbers.score("poor", 4).mean == 100
    assert numbers.score("poor", 1, ["3"]).mean == 25
    assert numbers.start("rich").mean == 37.5  # the model that poor began with
    assert numbers.gain("poor").mean == 12.5
    assert numbers.gain("rich").mean == 50
    assert numbers.difference("rich", "poor").mean == 37.5
    assert (numbers.trained("poor"), numbers.untrained("poor")) == (["2"], ["3"])
    assert numbers.gain("poor", ["3"]).mean == 0
    assert numbers.gain("rich", ["3"]).mean == 50


def test_a_chain_pays_for_what_it_builds_on(study):
    path, record = study
    record["cells"]["twin"]["from_run"] = "rich"
    put(path / "study.json", record)
    numbers = Numbers(path)
    assert [numbers.mean_cost(name) for name in ("poor", "rich", "twin")] == [100, 400, 600]
    assert numbers.efficiency("poor").mean == pytest.approx(125)  # 12.5 points in 100 s
    assert numbers.efficiency("rich").mean == pytest.approx(125)  # 50 points in 400 s
    assert numbers.efficiency_difference("rich", "poor").mean == pytest.approx(0)
    assert numbers.unit == "CPU-seconds"


def test_answers_claim_what_intervals_show(study):
    numbers = Numbers(study[0])
    text = " ".join(study_report.answers(numbers, ["poor", "rich", "twin"]))
    assert text.startswith("rich is the most accurate, 87.5 % (")
    assert "37.5 points above poor (" in text
    assert re.search(r"no difference from twin \(0\.0, −\d+\.\d to \d+\.\d\) can be shown\.", text)
    assert "has the best pass@4" in text
    assert "twin gains the most, +250.0 points" in text
    assert study_report.answers(numbers, [])[0].startswith("No answer yet")
    alone = "No answer yet: only rich has finished, with accuracy 87.5 % (82.9 to 91.0)."
    assert study_report.answers(numbers, ["rich"]) == [alone]
    carried = study_report.carries_over(numbers, ["poor", "rich"])
    assert carried.startswith(
        "On questions that a cell was not trained on, accuracy rose with rich (+50.0 points on level 3, "
    )
    assert "no change can be shown with poor (0.0 points on level 3, −" in carried


def test_lengths_stand_beside_the_gains(study):
    path, _ = study
    assert Numbers(path).tokens("poor") is None
    lines = [json.loads(line) for line in (path / "runs/0-0/eval/after.prompts.jsonl").read_text().splitlines()]
    put(path / "runs/0-0/eval/after.prompts.jsonl", [{**line, "tokens": 10 * (i + 1)} for i, line in enumerate(lines)])
    numbers = Numbers(path)
    assert numbers.tokens("poor") == 205  # of 40 questions, in the one seed whose lengths were counted
    assert "<td>205</td>" in study_report.render(numbers)


def test_what_the_seeds_can_show(study):
    path, _ = study
    assert study_report.can_show(Numbers(path), ["poor", "rich"]) == ""  # seeds of a cell are alike
    make_run(path / "runs/0-1", {"2": 4, "3": 1}, 100)  # 62.5 % where its other seeds are at 50 %
    # s² = (52.08 × 2 + 0) / 4; t(4) × √(2 × 26.04 / 3) = 2.7764 × 4.1667
    text = study_report.can_show(Numbers(path), ["poor", "rich"])
    assert "3 seeds can show a difference of 11.6 points or more" in text
    whole = study_report.can_show(Numbers(path), WHICH["compare"])
    assert "8.3 points" in whole  # with twin s² = 52.08 × 2 / 6; t(6) × √(2 × 17.36 / 3) = 2.4469 × 3.402
    assert whole in study_report.render(Numbers(path))
    assert study_report.can_show(Numbers(path), ["poor"]) == ""


def test_benchmarks_are_never_trained_on(study):
    path, record = study
    put(path / "study.json", {**record, "by": "task"})
    numbers = Numbers(path)
    assert (numbers.groups, numbers.trained("poor"), numbers.untrained("poor")) == (["sums"], [], ["sums"])
    assert "poor (+12.5 points on sums, " in study_report.carries_over(numbers, ["poor"])


def test_failed_and_blocked_runs_are_named(study):
    path, record = study
    for one in record["runs"]:
        if one["cell"] == "poor" and one["seed"] == 1:
            one |= {"status": "failed", "reason": "train after: it <broke>"}
        if one["cell"] == "rich":
            one |= {"status": "blocked", "reason": "it needs poor"}
    put(path / "study.json", {**record, "status": "failed"})
    words = Outline(study_report.build(path).read_text()).words
    assert "poor, seed 1: failed. train after: it <broke>" in words
    assert "rich, seed 2: blocked. it needs poor" in words
    assert "4 failed or blocked" in words
    assert "Not included, because no run finished: rich." in words
    assert Numbers(path).seeds("poor") == [0, 2]


def test_a_page_before_anything_has_finished(tmp_path):
    record = make_study(tmp_path, {"poor": cell(), "rich": cell(), "twin": cell()}, [WHICH, CARRIES])
    put(tmp_path / "study.json", {**record, "runs": [{**one, "status": "waiting"} for one in record["runs"]]})
    words = Outline(study_report.build(tmp_path).read_text()).words
    assert "No answer yet: none of these cells has finished." in words
    assert "0 of 9 runs done" in words


def test_the_page(study):
    page = study_report.build(study[0]).read_text()
    assert page == study_report.build(study[0]).read_text(), "the same folder gives the same bytes"
    outline = Outline(page)
    words = outline.words
    for said in (
        "Which is best?", "Does it carry over?", "9 of 9 runs done", "pass@4, %", "87.5", "20 questions",
        "Accuracy by level", "not comparable with published ones", "starts from the model ofpoor", "trained on",
        "rich − poor", "runs/0-0", "CPU-seconds of training",
    ):  # fmt: skip
        assert said in words, said
    assert not {"script", "img", "link"} & set(outline.tags)
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page)


def test_a_named_metric_has_its_unit_and_direction_everywhere(study):
    path, record = study
    record["metric"] = {"name": "edit distance", "unit": "characters", "higher_is_better": False}
    put(path / "study.json", record)
    for number, distance in enumerate((12, 4, 4)):
        for seed in range(3):
            for label, mean in (("after", distance), ("before", 20)):
                file = path / f"runs/{number}-{seed}/eval/{label}.prompts.jsonl"
                if file.exists():  # in hundredths, whatever the metric
                    lines = [json.loads(line) for line in file.read_text().splitlines()]
                    put(file, [{**line, "mean": 100 * (mean + 0.1 * (i % 3))} for i, line in enumerate(lines)])
    numbers = Numbers(path)
    assert numbers.score("poor").mean == pytest.approx(12.1, abs=0.01)
    assert numbers.gain("rich").mean == pytest.approx(-16)
    (best, cost) = study_report.answers(numbers, ["poor", "rich", "twin"])
    assert best.startswith("rich has the best edit distance, 4.10 characters (4.0")
    assert "8.00 characters below poor (" in best
    assert cost.startswith("Per training cost poor lowers it the most, −80.0 characters (")  # in half of twin's time
    assert study_report.pairs(numbers, ["poor", "rich"])[0][:2] == ("rich", "poor")
    words = Outline(study_report.build(path).read_text()).words
    for text in ("edit distance, characters", "gain, characters", "lower is better", "Edit distance by level"):
        assert text in words, text
    assert not re.search("pass@|[Aa]ccura", words)


@pytest.mark.parametrize("name", [HOSTILE, "a$b$c_{x}", '"><b>', "]]>", "\ud800"])
def test_hostile_names_stay_text(tmp_path, name):
    asked = {"ask": name, "compare": [name], "measure": "accuracy"}
    settings = {"model": name, "train": {name: name}}
    one = cell(recipe=name, settings=settings)
    record = make_study(tmp_path, {name: one, "other": cell()}, [asked, {**asked, "measure": "untrained"}])
    record["runs"][-1] |= {"status": "failed", "reason": name}
    put(tmp_path / "study.json", {**record, "overrides": [name], "warnings": [name]})
    for seed in range(3):
        make_run(tmp_path / f"runs/0-{seed}", {"2": 3, "3": 1}, 100)
    page = study_report.build(tmp_path).read_text(encoding="utf-8")
    outline = Outline(page)
    assert not {"script", "img", "b>"} & set(outline.tags)
    assert not [attribute for attribute, _ in outline.attributes if attribute.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)


def _event(kind, second, phase="train", label="after", **more):
    return {"event": kind, "time": f"2026-01-31T09:30:{second:02}.000+00:00", "phase": phase, "label": label, **more}


def test_cost_of_training():
    whole = [_event("phase_start", 0), _event("phase_end", 30, seconds=30.0, cpu_seconds=50.0)]
    assert training_cost(whole, 4, cpu=False) == 120  # four GPUs for 30 s
    assert training_cost(whole, 1, cpu=True) == 50
    control = [_event("phase_start", 30, label="control"), _event("phase_end", 59, label="control", seconds=29.0)]
    evaluation = [_event("phase_start", 30, "eval"), _event("phase_end", 50, "eval", seconds=20.0)]
    assert training_cost([*whole, *control, *evaluation], 4, cpu=False) == 120


def test_cost_of_attempts_that_were_killed():
    step = {"event": "train_step", "time": "2026-01-31T09:30:10.000+00:00", "label": "after", "step": 3, "total": 9}
    killed = [_event("phase_start", 0), step]  # kill -9: nothing is said after the step
    again = [_event("phase_start", 20), _event("phase_end", 35, seconds=15.0)]
    assert training_cost(killed, 2, cpu=False) == 20
    assert training_cost([*killed, *again], 2, cpu=False) == 50
    stopped = [_event("phase_start", 0), _event("phase_end", 8, status=-15)]  # stopped politely: an end without seconds
    assert training_cost([*stopped, *again], 2, cpu=False) == 46
