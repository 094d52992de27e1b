"""Agreement of rewards with human preferences: ties, invalid records, sums of z-scores, the paper's figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import making
import pytest

from data_prep.evaluation.agreement import main, zsum

REPO = Path(__file__).resolve().parents[2]
LYON = "Lyon is a large city in the south of France, known for its kitchens, its silk and two rivers."
PARIS = "The capital of France is Paris."


def pairs() -> list[dict]:
    """A short right answer against a long wrong one, twice in each order; a tie of equal texts."""
    asked = {"prompt": "What is the capital of France?", "references": [PARIS, "It is Paris, on the Seine."]}
    return [
        {**asked, "responses": [PARIS, LYON], "winner": 0},
        {**asked, "responses": [LYON, PARIS], "winner": 1},
        {**asked, "responses": ["It is Paris.", LYON], "winner": 0},
        {**asked, "responses": [LYON, "The capital is Paris."], "winner": 1},
        {**asked, "responses": [PARIS, PARIS], "winner": "tie"},
    ]


def test_agreement_of_likeness_and_of_length(tmp_path, capsys):
    faulty = [
        {"prompt": "x", "responses": ["a"], "winner": 0, "references": ["b"]},
        {**pairs()[0], "winner": 2},
        {**pairs()[0], "references": [None, " "]},
    ]
    path = making.write_jsonl(tmp_path / "pairs.jsonl", pairs() + faulty)
    paper = ["--paper", str(REPO / "recipes" / "bleuberi" / "_paper.yaml")]
    words = [
        "--data",
        str(path),
        *paper,
        "--out",
        str(tmp_path / "out" / "agreement"),
        "--encoder",
        "",
        "--workers",
        "1",
    ]
    assert main(words) == 0
    table = capsys.readouterr().out
    made = json.loads((tmp_path / "out" / "agreement.json").read_text())
    means = {name: own["mean"] for name, own in made["rewards"].items()}
    assert list(means) == [
        "bleu, 1 reference", "bleu, 2 references", "rouge_l", "bleu_rouge_f1", "chrf", "keywords", "length"
    ]  # fmt: skip
    assert {name for name in means if means[name] < 100} == {"keywords", "length"}
    assert means["keywords"] == 80  # "It is Paris." and what is said of Lyon each have one phrase of three: a tie
    assert means["length"] == 20  # the tie alone
    assert made["rewards"]["length"]["ties"] == 1
    assert made["faults"] == {"responses are not two texts": 1, "winner is not 0, 1 or tie": 1, "no reference": 1}
    assert "| bleu, 1 reference | 5 | 100.0 | " in table
    assert "| 72.3 |" in table
    assert (tmp_path / "out" / "agreement.png").stat().st_size > 5000


def test_a_pair_with_too_few_references_is_skipped(tmp_path, capsys):
    path = making.write_jsonl(tmp_path / "pairs.jsonl", [*pairs(), {**pairs()[0], "references": [PARIS]}])
    assert main(["--data", str(path), "--out", str(tmp_path / "a"), "--encoder", "", "--workers", "1"]) == 0
    made = json.loads((tmp_path / "a.json").read_text())["rewards"]
    counts = {name: (own["pairs"], own["left_out"]) for name, own in made.items() if name.startswith("bleu, ")}
    assert counts == {"bleu, 1 reference": (6, 0), "bleu, 2 references": (5, 1)}


@pytest.mark.parametrize("text", ["table: {}", "[", "agreement: {bleu: high}", ""])
def test_a_paper_file_without_figures_is_a_one_line_error(tmp_path, capsys, text):
    (tmp_path / "paper.yaml").write_text(text)
    path = making.write_jsonl(tmp_path / "pairs.jsonl", pairs())
    assert main(["--data", str(path), "--paper", str(tmp_path / "paper.yaml"), "--out", str(tmp_path / "a")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'paper.yaml'}: ")


def test_make_requires_the_pairs_file():
    done = subprocess.run(["make", "agreement/bleuberi"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode
    assert "DATA: set the pairs, such as DATA=pairs.jsonl" in done.stderr


def test_a_reward_model_is_added_to_bleu_by_z_scores():
    bleu, model = [(0.0, 1.0), (1.0, 0.0), None], [(10.0, 20.0), (20.0, 10.0), (15.0, 15.0)]
    # BLEU: mean 1/2, deviation 1/2. The model: mean 15, deviation 10 / sqrt(6).
    half = (1 + 5 / (100 / 6) ** 0.5) / 2
    assert zsum([bleu, model]) == [pytest.approx((-half, half)), pytest.approx((half, -half)), None]


def test_a_missing_encoder_skips_only_its_reward(tmp_path):
    path = making.write_jsonl(tmp_path / "pairs.jsonl", pairs())
    command = [
        sys.executable,
        "-m",
        "data_prep.evaluation.agreement",
        "--data",
        str(path),
        "--out",
        str(tmp_path / "a"),
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(command, cwd=REPO, env=offline, capture_output=True, text=True, check=True)
    made = json.loads((tmp_path / "a.json").read_text())["rewards"]
    assert made["bleu, 1 reference"]["mean"] == 100
    assert made["embedding"]["pairs"] == 0
    assert "embedding: not measured: encoder " in done.stdout
    named = subprocess.run([*command, "--encoder", "a/b"], cwd=REPO, env=offline, capture_output=True, text=True)
    assert named.returncode != 0
    assert "encoder 'a/b'" in named.stderr
