"""The report's page of rollouts: of a few steps the best, the worst and a random one, with every part of the reward."""

from __future__ import annotations

import json
from pathlib import Path

from launchers.report import page
from launchers.report.results import Results
from launchers.report.sections import rollouts
from tests.launchers.test_report import Outline

LONG = "The capital of France is Paris. " * 12


def run(folder: Path, steps: int = 20) -> Path:
    """Samples as verl writes them: answers grow with the steps, and so does BLEU, not the format."""
    samples = folder / "train" / "samples"
    samples.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"recipe": "x/y", "status": "done"}))
    for step in range(1, steps + 1):
        answers = [("Paris.", 0.125, 0.0), (LONG, 0.25 * step, 1.0), ("<b>Lyon", 0.0, 0.0)]
        lines = [
            {"input": "user\nWhat is the capital of France?", "output": text, "score": bleu + fits, "step": step,
             "id": f"q{n}", "outcome": "scored", "bleu": bleu, "format": fits, "is_error": 0.0, "acc": bleu}
            for n, (text, bleu, fits) in enumerate(answers)
        ]  # fmt: skip
        (samples / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"input": "tor')
    return folder


def test_the_best_the_worst_and_a_random_one_of_steps_over_the_whole_run(tmp_path):
    found = rollouts.section(Results(run(tmp_path)))
    assert [step["step"] for step in found] == [1, 5, 9, 12, 16, 20]
    last = dict(found[-1]["rollouts"])
    assert (last["best"]["completion"], last["worst"]["completion"]) == (LONG, "<b>Lyon")
    assert last["best"]["parts"] == {"bleu": 5.0, "format": 1.0}
    assert (last["best"]["words"], last["best"]["characters"]) == (72, len(LONG))
    assert found[0]["characters"] == (6 + len(LONG) + 7) / 3


def test_the_page_shows_them_as_text(tmp_path):
    html = page.build(run(tmp_path, steps=2)).read_text()
    words = Outline(html).words
    assert "Step 2" in words
    assert "score 1.5 · scored · 72 words" in words
    assert "bleu 0.5" in words
    assert "<b>Lyon" not in html


def test_a_run_without_rollouts_has_no_such_page(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"recipe": "x/y", "status": "done"}))
    assert rollouts.section(Results(tmp_path)) == []
