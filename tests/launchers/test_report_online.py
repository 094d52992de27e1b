"""The report of online RL: attempts merged, curves and sentences from what was logged, and nothing that was not."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from launchers.report import curves, plots
from launchers.report import page as report
from launchers.report.results import Results
from launchers.report.sections import online as report_online
from launchers.report.sections import rollouts
from tests.launchers import made_up_run, test_report
from tests.launchers.made_up_run import CONTROL, HOSTILE, TASKS, put
from tests.launchers.test_report import Outline


@pytest.fixture(scope="module")
def online_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "grpo"
    made_up_run.online_run(run)
    return run


@pytest.fixture(scope="module")
def page(online_run):
    return report.build(online_run).read_text()


def words_of(run):
    return Outline(report.build(run).read_text()).words


def log(run, *steps, name="train", attempt="1"):
    """A training's metrics file: data by step."""
    put(run / f"{name}/metrics/{attempt}.jsonl", [{"step": step, "data": data} for step, data in steps])


def section(run):
    return report_online.section(Results(run))


def panel_titles(run):
    return [panel["title"] for panel in section(run)["panels"]]


def test_a_later_attempt_holds_from_its_first_step_on():
    score = "critic/score/mean"
    first = [{"step": step, "data": {score: float(step)}} for step in range(1, 8)]
    again = [{"step": 4, "data": {"val-core/t/acc/mean@1": 0.5}}, {"step": 5, "data": {score: 50}}]
    found = curves.merged([first, [], again])
    assert found.curves[score] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]  # 6 and 7 are no part of what came out
    assert found.validations() == {"t": [(4, 0.5)]}
    assert (found.resumed, found.last) == ([4], 5)


def test_only_numbers_at_numbered_steps_are_points():
    found = curves.merged([[
        {"step": 1, "data": {"critic/score/mean": "0.5", "accuracy/train": True, "actor/grad_norm": None}},
        {"step": "2", "data": {"critic/score/mean": 1.0}},
        {"step": math.nan, "data": {"critic/score/mean": 1.0}},
        {"step": 3, "data": [1.0]},
        {"step": 4, "data": {"critic/score/mean": 10**400, "actor/grad_norm": 2, "unknown/metric": 1.0}},
        {"step": 5, "data": {"critic/score/mean": 3.0}},
    ]])  # fmt: skip
    assert found.curves == {"actor/grad_norm": [(4, 2.0)], "critic/score/mean": [(5, 3.0)]}
    assert found.broken == {"critic/score/mean": (1, 2)}


def test_the_page_says_what_was_optimised_and_what_came_of_it(page):
    words = Outline(page).words
    for said in (
        "80 planned, 60 done", "16 prompts × 8 completions = 128, 2 updates", "0.0002, constant",
        "clip_higher: clipped ratios with a higher upper bound, mean over tokens; ratios clipped to 0.8 to 1.28",
        "reward minus the group mean, divided by the group standard deviation",
        "to the initial model, k3 in the loss, coefficient 0.01", "−1 added to the reward",
        "training resumed after an interruption, at step 31", "format × 0.2", "repetition, weight 0",
        "Training ended early at step 60: accuracy has not risen", "Its best validation was at step 50.",
        "Accuracy on arithmetic rose", "in 6 steps", "in 3 steps",
    ):  # fmt: skip
        assert said in words, said
    assert "this run: 60 steps, reward 0.3" in words
    assert all(f"{task} " in words for task in TASKS)
    assert "Not in this run directory: data." in words


def test_a_run_without_controls_shows_every_curve(online_run):
    assert panel_titles(online_run) == [
        "Accuracy", "Reward", "KL to the initial model", "Entropy", "Response length", "Truncated",
        "Groups without variance", "Gradient norm", "Clipped tokens", "Reward components",
    ]  # fmt: skip
    [accuracy, *_] = section(online_run)["panels"]
    assert [name for name, _ in accuracy["legend"]] == ["training", *TASKS]
    assert len({look.tone for _, look in accuracy["legend"]}) == 5


def test_controls_are_drawn_in_their_colours(tmp_path):
    made_up_run.online_run(tmp_path, control=True)
    found = section(tmp_path)
    assert [(name, look.tone) for name, look, _ in found["runs"]] == [("this run", "after"), (CONTROL, "c1")]
    drawn = {panel["title"]: str(panel["plot"]) for panel in found["panels"]}
    for title in ("Accuracy on training prompts", "Accuracy on arithmetic", "Reward", "KL to the initial model"):
        assert "var(--after)" in drawn[title]
        assert "var(--c1)" in drawn[title]


def test_other_peoples_text_stays_text(tmp_path):
    made_up_run.online_run(tmp_path, control=True)
    data = {f"val-core/{HOSTILE}/acc/mean@1": 0.5, f"reward/part/{HOSTILE}": 0.1, "reward/part/$a_{x}$": 0.2}
    log(tmp_path, (61, {**data, f"outcome/{HOSTILE}": 0.5, f"timing_s/{HOSTILE}": 1.0}), attempt="3")
    put(tmp_path / "train/notes.json", [HOSTILE, {"no": "text"}])
    put(tmp_path / f"controls/{CONTROL}/train/stopped.json", {"step": HOSTILE, "why": [HOSTILE]})
    text = report.build(tmp_path).read_text()
    outline = Outline(text)
    assert not {"script", "img"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    assert outline.words.count("document.title='owned'") >= 5
    assert "$a_{x}$" in outline.words
    test_report.test_ids_are_unique_and_references_resolve(text)


def test_the_page_needs_nothing_and_follows_the_scheme(page, online_run):
    test_report.test_the_page_needs_nothing_from_elsewhere(page)
    test_report.test_ids_are_unique_and_references_resolve(page)
    test_report.test_colours_follow_the_scheme(page)
    assert report.build(online_run).read_text() == page


PARTS = (
    "resolved.json", "plan.json", "train/planned.json", "train/stopped.json", "train/notes.json",
    "train/metrics/1.jsonl", "train/metrics/2.jsonl",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["gone", "torn", "binary", "deep", "another shape"])
def test_any_part_may_be_missing_or_damaged(online_run, tmp_path, part, damage):
    shutil.copytree(online_run, tmp_path, ignore=shutil.ignore_patterns("eval", "metrics"), dirs_exist_ok=True)
    put(tmp_path / "train/notes.json", ["learned nothing: all equal"])
    for attempt in ("1", "2"):
        log(tmp_path, *((int(attempt) + i, {"actor/kl_loss": 0.1}) for i in range(3)), attempt=attempt)
    path = tmp_path / part
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({
            "torn": whole[:-7], "binary": b"\xff\xfe\x00" + bytes(range(256)),
            "deep": b"[" * 100_000, "another shape": b"[[1], 2]\n",
        }[damage])  # fmt: skip
    words = words_of(tmp_path)
    assert "KL to the initial model" in words
    if damage in ("torn", "binary", "deep"):
        said = (f"{part} is not valid JSON", f"{part} cannot be read", f"{part}: 1 unreadable line skipped.")
        assert any(sentence in words for sentence in said) or (damage == "binary" and f"{part}: " in words)


def test_values_that_are_no_numbers_are_said_and_left_out(tmp_path):
    log(tmp_path, *((step, {"actor/kl_loss": math.nan if step > 7 else 0.1}) for step in range(1, 11)))
    log(tmp_path, *((step, {"critic/score/mean": math.inf}) for step in range(1, 3)), name="controls/x/train")
    words = words_of(tmp_path)
    assert "actor/kl_loss of train was not finite at 3 of 10 logged steps." in words
    assert "critic/score/mean of x was not finite at 2 of 2 logged steps." in words
    assert panel_titles(tmp_path) == ["KL to the initial model"]


def test_a_recipe_without_kl_says_so(tmp_path):
    put(tmp_path / "resolved.json", {"algorithm": {"kl": "none", "loss": "dr_grpo", "truncated": "mask"}})
    log(tmp_path, (1, {"critic/score/mean": 0.5, "actor/entropy_loss": 0.1, "actor/pg_clipfrac": 0.0}))
    words = words_of(tmp_path)
    assert "neither penalised nor measured" in words
    assert "masked out of the loss" in words
    assert "nats, summed as in the loss" in words  # Dr. GRPO's sums over tokens are no means
    assert "0 in every step: clipped tokens." in words
    assert panel_titles(tmp_path) == ["Reward", "Entropy"]


def test_a_run_of_which_only_a_control_was_trained(tmp_path):
    log(tmp_path, (0, {"val-core/t/acc/mean@1": 0.25}), (1, {"critic/score/mean": 0.5}), name="controls/x/train")
    put(tmp_path / "resolved.json", {"controls": {"x": {}}})
    assert "x: 1 steps, reward 0.50 → 0.50, t 25.0 → 25.0 %" in words_of(tmp_path)


def test_the_missing_list_knows_both_kinds_of_log(tmp_path):
    (tmp_path / "train/metrics").mkdir(parents=True)
    assert "Not in this run directory: data, a training log" in words_of(tmp_path)
    log(tmp_path, (1, {"critic/score/mean": 0.5}))
    assert "Not in this run directory: data, an evaluation" in words_of(tmp_path)


def test_a_training_that_learned_nothing_says_so(tmp_path):
    log(tmp_path, (1, {"groups/zero_variance": 1.0}))
    put(tmp_path / "train/notes.json", ["learned nothing: in all 9 steps the rewards of every group were equal"])
    assert "Training learned nothing: in all 9 steps the rewards of every group were equal." in words_of(tmp_path)


def test_a_second_judge_is_drawn_beside_the_held_out_reward(tmp_path):
    log(tmp_path, *((step, {"val-core/chat/reward/mean@1": step / 10}) for step in (0, 10, 20)))
    put(tmp_path / "train/judged.json", {"means": {"0": 1.5, "10": 2.5, "20": 2.0}, "samples": 8, "best_step": 10})
    assert {"Reward on chat", "Second judge"} <= set(panel_titles(tmp_path))
    assert Results(tmp_path).online["train"].curves["second_judge"] == [(0, 1.5), (10, 2.5), (20, 2.0)]


def test_a_sampler_far_from_the_trainer_is_a_warning(tmp_path):
    log(tmp_path, *((step, {"sampler/effective_sample_size": size}) for step, size in enumerate((0.9, 0.3, 0.4), 1)))
    assert "Effective sample size" in panel_titles(tmp_path)
    assert "the median effective sample size is 40 %" in words_of(tmp_path)


def test_thought_and_answer_are_measured_by_the_recipes_format(tmp_path):
    put(tmp_path / "resolved.json", {"thinking": "think"})
    log(tmp_path, (1, {"critic/score/mean": 0.5}))
    texts = {"<think>\nabcd\n</think>\n\nxy<|im_end|>": 2.0, "no marks": -1.0}
    put(tmp_path / "train/samples/1.jsonl", [{"output": text, "score": score} for text, score in texts.items()])
    found = {title: curves for title, _, curves in rollouts.curves(Results(tmp_path))}
    assert found["Malformed"] == {"malformed": [(1, 50.0)]}
    assert found["Thought and answer"] == {"thought": [(1, 2.0)], "answer": [(1, 5.0)]}
    assert found["Reward by format"] == {"well-formed": [(1, 2.0)], "malformed": [(1, -1.0)]}
    assert {"Malformed", "Thought and answer"} <= set(panel_titles(tmp_path))


@pytest.mark.parametrize(("name", "malformed"), [("zero_nothink", 50.0), ("none", 0.0)])
def test_answers_without_thoughts_are_measured_too(tmp_path, name, malformed):
    put(tmp_path / "resolved.json", {"thinking": name})
    texts = {"<response>\nxy\n</response><|im_end|>": 2.0, "no marks": -1.0}
    put(tmp_path / "train/samples/1.jsonl", [{"output": text, "score": score} for text, score in texts.items()])
    found = {title: curves for title, _, curves in rollouts.curves(Results(tmp_path))}
    assert found["Malformed"] == {"malformed": [(1, malformed)]}
    assert list(found["Answer"]) == ["answer"]
    assert found["Reward by format"]["well-formed"]


def test_where_the_time_goes_by_hand():
    entries = [
        {"step": 1, "data": {"timing_s/step": 10, "timing_s/gen": 4, "timing_s/ref": 1, "timing_s/old_log_prob": 2}},
        {"step": 2, "data": {"timing_s/step": 20, "timing_s/gen": 8, "timing_s/testing": 10}},
    ]
    found = report_online.step_time(curves.merged([entries]))
    rows = [(row["name"], row["median"], row["share"], row["times"]) for row in found["rows"]]
    assert rows == [
        ("rollout", "6", 30, 2), ("log-probabilities", "3", 7.5, 1), ("validation", "10", 25, 1),
        ("other", "7.5", 37.5, 2),
    ]  # fmt: skip
    assert found["median"] == "15 s"


def test_outcomes_by_hand():
    shares = [0.5, *[0.25] * 18, 0.0]
    entries = [
        {"step": i, "data": {"outcome/error": s, "outcome/scored": 1 - s, "outcome/timeout": 0}}
        for i, s in enumerate(shares)
    ]
    found = report_online.outcomes(curves.merged([entries]))
    assert found == [("scored", 62.5, 87.5), ("error", 37.5, 12.5)]  # tenths of 20 steps; what never came is left out


def test_curves_are_smoothed_and_thinned():
    assert plots.smooth([1.0, 2.0, 6.0], share=1) == [1.5, 3.0, 4.0]
    assert plots.smooth([1.0, 5.0]) == [1.0, 5.0]  # so few steps speak for themselves
    assert plots.thinned(range(5), [0, 2, 4, 6, 8], limit=2) == ([1.0, 3.5], [2.0, 7.0])
    assert plots.thinned([1, 2], [3, 4]) == ([1, 2], [3, 4])


def test_axes_of_all_panels_stand_in_line(online_run):
    """Every panel has the same frame, whatever its tick labels."""
    drawn = [str(panel["plot"]) for panel in section(online_run)["panels"]]
    boxes = {part.split('viewBox="')[1].split('"')[0] for part in drawn}
    spines = {part.split("-patch_3")[1].split(' d="')[1].split('"')[0] for part in drawn}
    assert (len(boxes), len(spines)) == (1, 1)


def test_a_long_log_is_read_line_by_line(tmp_path):
    path = tmp_path / "train/metrics/1.jsonl"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        for step in range(1, 20_001):
            data = {"critic/score/mean": step / 20_000} | {f"other/{i}": 1.0 for i in range(20)}
            file.write(json.dumps({"step": step, "data": data}) + "\n")
    assert len(Results(tmp_path).online["train"].curves["critic/score/mean"]) == 20_000
    assert report.build(tmp_path).stat().st_size < 100_000
