"""BLEUBERI's data: the original's selection by hand, guarded selection, references, and the command's output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import making
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from data_prep.core import pipeline
from data_prep.core.step import Context, Drop
from data_prep.errors import DataError
from data_prep.families.bleuberi import build
from data_prep.families.bleuberi.__main__ import main
from data_prep.families.bleuberi.pool import Pool, PoolParams
from data_prep.inference.vllm.reward_check import PAIRS
from data_prep.steps.choose import Choose, ChooseParams, length_label
from data_prep.steps.references import ReferencesSftParams
from launchers.recipe import compose
from tests.fakes.reward_server import RewardServer

REPO = Path(__file__).resolve().parents[2]
QUESTIONS = (
    "Name three primary colours.", "Who wrote Middlemarch?", "Translate 'good morning' into French.",
    "What is the boiling point of water at sea level?", "Give me a haiku about rain.", "Convert 5 miles to kilometres.",
)  # fmt: skip
GOLD = (
    "Red, yellow and blue are the three primary colours of paint.", "George Eliot wrote Middlemarch in 1871.",
    "Good morning is bonjour in French, before evening.", "Water boils at 100 degrees Celsius at sea level.",
    "Rain on the tin roof, a cat folds itself smaller, the gutter keeps time.", "Five miles are about 8.05 kilometres.",
)  # fmt: skip


def pool(folder: Path, **columns: list) -> Path:
    """A folder as `datasets` saves it, with a slash in its path."""
    told = {
        "id": [f"q{n}" for n in range(len(QUESTIONS))],
        "source": ["a", "b"] * 3,
        "messages": [
            [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
            for q, a in zip(QUESTIONS, GOLD, strict=True)
        ],
        "ref_output_gold": list(GOLD),
        "ref_output_o4-mini-2025-04-16": [answer.replace("is", "'s") for answer in GOLD],
        **columns,
    }
    path = folder / "my" / "pool"
    DatasetDict({"train": Dataset.from_dict(told)}).save_to_disk(str(path))
    return path


def scored(scores: list[float], **extra) -> list[dict]:
    return [
        {
            "id": f"q{n}/0", "prompt": [{"role": "user", "content": QUESTIONS[n % 6]}],
            "completion": "four words of answer",
            "references": ["a reference of eight words, that is enough here"], "source": "a", "score": score,
            "outcome": "scored", "meta": {"prompt_id": f"q{n}", "finish_reason": "stop"}, **extra,
        }
        for n, score in enumerate(scores)
    ]  # fmt: skip


def chosen(rows: list[dict], **params) -> list[str]:
    step = Choose(ChooseParams(**params))
    return [row["id"] for row in step.apply(rows, Context(Path(), Path())) if not isinstance(row, Drop)]


# Worked out by hand from the original's rules; q1 and q4 are equal, and keep the pool's order where they tie.
SCORES = [0.50, 0.10, 0.90, 0.00, 0.10, 0.30, 0.70]
BY_HAND = {
    ("easy", 3): ["q2", "q6", "q0"],
    ("hard", 3): ["q1", "q4", "q3"],
    ("hard", 2): ["q1", "q3"],  # the first of the equal ones
    ("medium", 3): ["q0", "q5", "q4"],  # of q3 q1 q4 q5 q0 q6 q2 from place (7 - 3) // 2 on
    ("medium", 2): ["q5", "q4"],
    ("hard", None): ["q2", "q6", "q0", "q5", "q1", "q4", "q3"],
    ("easy", 9): ["q2", "q6", "q0", "q5", "q1", "q4", "q3"],  # more than there are
}


@pytest.mark.parametrize(("mode", "n"), BY_HAND)
def test_selection_equals_the_originals(mode, n):
    assert chosen(scored(SCORES), mode=mode, n=n) == BY_HAND[mode, n]


@pytest.mark.parametrize("mode", ["easy", "hard", "medium"])
@pytest.mark.parametrize("fault", [{"outcome": "error"}, {"outcome": "timeout"}, {"score": None}, {"score": np.nan}])
def test_a_failed_score_counts_as_missing(mode, fault):
    """A reward model's scores are negative, so the 0.0 of a failed request would be the highest."""
    rows = [*scored([-17.5, -9.0]), {**scored([0.0] * 3)[2], **fault}]
    outputs = list(Choose(ChooseParams(mode=mode, n=3)).apply(rows, Context(Path(), Path())))
    assert [row["id"] for row in outputs if not isinstance(row, Drop)] == ["q1", "q0"]
    (drop,) = [output for output in outputs if isinstance(output, Drop)]
    assert (drop.reason, drop.bad) == ("missing score", True)


def test_random_mode_samples_as_numpy_does():
    np.random.seed(42)
    drawn = np.random.choice(7, 3, replace=False)
    assert chosen(scored(SCORES), mode="random", n=3) == [f"q{at}" for at in drawn]
    assert chosen(scored(SCORES), mode="random", n=7) == [f"q{at}" for at in range(7)]


def test_guarded_selection_drops_uninformative_rows_and_keeps_source_shares():
    rows = scored([0.02 * n for n in range(12)])
    for at, fault in enumerate(({"completion": " "}, {"outcome": "error"}, {"references": ["Yes."]})):
        rows[at] |= fault
    rows[3]["meta"]["finish_reason"] = "length"
    for row in rows[6:]:
        row["source"] = "b"
    outputs = list(Choose(ChooseParams(mode="hard", n=4, guarded=True)).apply(rows, Context(Path(), Path())))
    kept = [row["id"] for row in outputs if not isinstance(row, Drop)]
    assert kept == ["q8", "q7", "q6", "q4"]  # of 2 and 6 rows, 1 and 3
    reasons = {drop.reason for drop in outputs if isinstance(drop, Drop)}
    assert reasons == {"empty answer", "missing score", "tiny reference", "truncated answer", "not chosen"}
    assert chosen(rows, mode="hard", n=2, guarded=True, band=(0.5, 1.0)) == ["q9", "q5"]


def test_lengths_are_compared_with_the_shortest_reference():
    row = scored([0.1])[0]  # 4 words beside 10 tokens
    assert length_label(row) == "answer less than half as long as the reference"
    assert length_label({**row, "completion": "word " * 9}) == "answer of similar length"
    assert length_label({**row, "completion": "word " * 30}) == "answer more than twice as long"
    assert length_label({**row, "completion": "\f"}) == "answer empty"


FAULTS = {
    "null": [None, *GOLD[1:]], "blank": [" \n", *GOLD[1:]], "no word": ["\f", *GOLD[1:]], "empty": ["", *GOLD[1:]],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_without_a_reference_is_dropped_and_counted(tmp_path, fault):
    path = pool(tmp_path, **{"ref_output_o4-mini-2025-04-16": FAULTS[fault]})
    params = {"path": str(path), "ref_models": ["o4-mini-2025-04-16", "gold"]}
    manifest, rows = making.run(tmp_path, ("reference_pool", params))
    assert (manifest.rows_out, sum(manifest.drops.values())) == (5, 1)
    (reason,) = manifest.drops
    assert "o4-mini-2025-04-16" in reason
    assert rows[0]["references"][0] == GOLD[1]  # gold is first, whatever was asked first
    assert rows[0]["answer"] == GOLD[1]


@pytest.mark.parametrize(("column", "reason"), [("ref_output_gold", "no reference gold"), ("prompt", "no prompt")])
def test_messages_replace_missing_columns_but_not_nulls(tmp_path, column, reason):
    path = pool(tmp_path, **{column: [None, " ", *(GOLD if column != "prompt" else QUESTIONS)[2:]]})
    outputs = list(Pool(PoolParams(path=str(path))).apply((), Context(tmp_path, tmp_path)))
    assert [output.reason for output in outputs if isinstance(output, Drop)] == [reason, reason]
    assert len(outputs) == len(QUESTIONS)
    turns = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]
    DatasetDict({"train": Dataset.from_dict({"messages": [turns]})}).save_to_disk(str(tmp_path / "bare"))
    _, (row,) = making.run(tmp_path, ("reference_pool", {"path": "bare"}))
    assert (row["prompt"][0]["content"], row["references"]) == ("a?", ["b."])


@pytest.mark.parametrize("column", ["references", "reference"])
def test_a_file_may_have_references_and_conversations(tmp_path, column):
    turns = (("user", "Hi"), ("assistant", "Yes?"), ("user", "2+2?"))
    asked = [{"role": role, "content": text} for role, text in turns]
    given = [None, " ", "\f", [" "], ["\f"], "Four.", ["\f", "Four.", "It is 4."]]
    rows = [{"id": str(at), "prompt": asked, column: references} for at, references in enumerate(given)]
    making.write_jsonl(tmp_path / "mine.jsonl", rows)
    outputs = list(Pool(PoolParams(path="mine.jsonl")).apply((), Context(tmp_path, tmp_path)))
    assert [output.reason for output in outputs if isinstance(output, Drop)] == ["no reference gold"] * 5
    kept = [(row["references"], row["prompt"]) for row in outputs if not isinstance(row, Drop)]
    assert kept == [(["Four."], asked), (["Four.", "It is 4."], asked)]


def test_nan_is_no_reference_but_the_text_null_is(tmp_path):
    """pandas reads both as NaN from the original's CSV of answers."""
    (tmp_path / "pool.csv").write_text("id,prompt,ref_output_gold\na,What is None in SQL?,null\nb,And in C?,\n")
    manifest, found = making.run(tmp_path, ("reference_pool", {"path": "pool.csv"}))
    assert [(row["id"], row["references"]) for row in found] == [("a", ["null"])]
    assert manifest.drops == {"no reference gold": 1}


def test_an_unknown_reference_model_lists_the_available_ones(tmp_path):
    params = {"path": str(pool(tmp_path)), "ref_models": ["gold", "o4-mini"]}
    with pytest.raises(DataError, match=r"no column ref_output_o4-mini; known: gold, o4-mini-2025-04-16"):
        making.run(tmp_path, ("reference_pool", params))


def test_a_file_without_references_is_an_error_that_lists_its_columns(tmp_path):
    """Such as the prompts of WildChat as they are."""
    making.write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": QUESTIONS[0], "ability": "chat"}])
    with pytest.raises(DataError) as caught:
        making.run(tmp_path, ("reference_pool", {"path": "prompts.jsonl"}))
    assert str(caught.value) == "no column ref_output_gold, references or reference; there are ability, prompt"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("x x x x x x", "x x-2 x-3 x-4 x-5 x-6"),
        ("x x x-2 x x-2 x", "x x-2 x-2-2 x-3 x-2-3 x-4"),
        ("x-2 x-3 x x x x-2", "x-2 x-3 x x-4 x-5 x-2-2"),
    ],
)
def test_duplicate_ids_become_distinct(tmp_path, given, made):
    _, rows = making.run(tmp_path, ("reference_pool", {"path": str(pool(tmp_path, id=given.split()))}))
    assert [row["id"] for row in rows] == made.split()


def test_the_command_saves_what_datasets_reads_and_sft_takes_the_references(tmp_path, capsys):
    path = pool(tmp_path)
    words = ["--hf_dataset_path", str(path), "--output_dir", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    models = ["--ref_models", "o4-mini-2025-04-16", "gold"]
    assert main(["grpo", *words, *models, "--selection_mode", "random", "--num_examples", "4"]) == 0
    output = Path(capsys.readouterr().out.strip())
    assert output.name == "pool_2ref-gold-o4mini_random_4"
    saved = load_from_disk(str(output))["train"]
    assert saved.column_names == ["id", "source", "messages", "prompt", "ground_truth", "references"]
    np.random.seed(42)
    assert saved["id"] == [f"q{at}" for at in np.random.choice(6, 4, replace=False)]
    row = saved[0]
    place = int(row["id"][1:])
    assert (row["prompt"], row["ground_truth"], row["references"][0]) == (QUESTIONS[place], GOLD[place], GOLD[place])
    assert row["messages"][1]["content"] == GOLD[place]
    assert "| choice | 6 | 4 | 2 not chosen |" in (output / "README.md").read_text()
    assert main(["grpo", *words, *models, "--selection_mode", "random", "--num_examples", "4"]) == 0  # kept
    named = ["--output_dataset_name", output.name]
    assert main(["grpo", *words, *named, "--selection_mode", "random", "--num_examples", "4"]) == 2  # other references
    assert "exists with other rows" in capsys.readouterr().err
    for references, rows in (([], 8), (["--references", "1"], 4)):
        assert main(["sft", "--input_data_path", str(output), "--output_dir", str(tmp_path / "out"), *references]) == 0
        made = load_from_disk(capsys.readouterr().out.strip())["train"]
        assert len(made) == rows
        assert made[0]["id"] == f"q{place}_{'1' if references else '0'}"


def test_sft_counts_drops_and_names_missing_columns(tmp_path, capsys):
    rows = {"id": ["a", "b", "c", "d"], "prompt": ["p", "q", "r", " "], "references": [["x", "y"], ["z"], None, ["w"]]}
    for name, columns in (("some", rows), ("none", {key: rows[key] for key in ("id", "prompt")})):
        DatasetDict({"train": Dataset.from_dict(columns)}).save_to_disk(str(tmp_path / name))
    words = ["--output_dir", str(tmp_path / "out"), "--input_data_path"]
    assert main(["sft", *words, str(tmp_path / "some"), "--references", "1"]) == 0
    output = Path(capsys.readouterr().out.strip())
    assert [(row["id"], row["source"]) for row in load_from_disk(str(output))["train"]] == [("a_1", "unknown")]
    assert "Dropped: 2 no reference 1, 1 no prompt." in (output / "README.md").read_text()
    assert main(["sft", *words, str(tmp_path / "some"), "--references", "5"]) == 2
    assert "no rows left: 3 no reference 5, 1 no prompt" in capsys.readouterr().err
    assert main(["sft", *words, str(tmp_path / "none")]) == 2
    assert "not a data set saved by `grpo`: no column references; columns: id, prompt" in capsys.readouterr().err


def test_remains_of_a_killed_writer_are_removed(tmp_path):
    output = tmp_path / "plain_1ref-gold"
    code = (
        "import os, sys; from pathlib import Path; from data_prep.families.bleuberi import build\n"
        "def records():\n    yield from ({'id': str(n)} for n in range(3000))\n    os.kill(os.getpid(), 9)\n"
        f"build.save(Path({str(output)!r}), records, lambda _: '', 'a')"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == -9
    assert any(path.is_dir() for path in tmp_path.iterdir())
    build.save(output, lambda: iter([{"id": "a"}]), lambda _: "", "b" * 64)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [output.name]


OPTIONS = {
    "no metric": (["--num_examples", "2"], "selection_mode hard needs both --model and --metric"),
    "random without a number": (["--selection_mode", "random"], "needs --num_examples"),
    "rm without a server": (["--metric", "rm", "--model", "m/x"], "give its --reward_model_url"),
    "no example": (["--num_examples", "0"], "--num_examples: Input should be greater than or equal to 1"),
    "a seed below 0": (["--seed", "-1"], "--seed: Input should be greater than or equal to 0"),
    "no token": (["--inference_max_new_tokens", "0"], "--inference_max_new_tokens: Input should be greater"),
    "no such folder": (
        ["--hf_dataset_path", "./no", "--selection_mode", "random", "--num_examples", "1"],
        "neither a local path nor a Hub id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_a_one_line_error(tmp_path, case):
    words, said = OPTIONS[case]
    command = [sys.executable, "-m", "data_prep.families.bleuberi", "grpo", "--cache", str(tmp_path), *words]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert said in done.stderr


def test_the_help_lists_what_may_be_chosen(capsys):
    with pytest.raises(SystemExit):
        main(["grpo", "--help"])
    shown = capsys.readouterr().out
    assert "--selection_mode {random,easy,medium,hard}" in shown
    assert "--metric {bleu,rouge,bleu_rouge_f1,rm,bertscore}" in shown


def test_the_encoder_of_bertscore_is_looked_for_before_anything_is_generated(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    words = ["--hf_dataset_path", str(pool(tmp_path)), "--cache", str(tmp_path / "cache"), "--model", "no/such"]
    assert main(["grpo", *words, "--metric", "bertscore"]) == 2
    said = capfd.readouterr().err
    assert "encoder 'distilbert/distilbert-base-uncased'" in said
    assert "Traceback" not in said
    assert not (tmp_path / "cache").exists()


def test_a_reference_that_is_named_twice_would_make_two_rows_of_one_name(tmp_path, capsys):
    assert main(["sft", "--input_data_path", str(tmp_path), "--references", "1", "0", "1"]) == 2
    assert "--references: an index is given twice" in capsys.readouterr().err
    with pytest.raises(ValueError, match="an index is given twice"):
        ReferencesSftParams(only=(0, 0))


def test_completions_become_references_and_references_become_rows(tmp_path):
    rows = [
        {"id": f"p{n}/0", "prompt": QUESTIONS[n], "completion": GOLD[n], "references": ["first"], "meta": about}
        for n, about in enumerate(
            [{"prompt_id": "p0", "finish_reason": "stop"}, {"prompt_id": "p1", "finish_reason": "length"}]
        )
    ]  # fmt: skip
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    _, found = making.run(tmp_path, ("load", {"path": "in.jsonl"}), ("add_reference", {}), ("references_sft", {}))
    assert [(row["id"], row["completion"]) for row in found] == [("p0_0", "first"), ("p0_1", GOLD[0])]
    assert json.dumps(found[0]["meta"]) == "{}"


@pytest.mark.parametrize(
    ("value", "model", "said"),
    [
        (lambda text: -17.5, "rm", "bad answers score above good ones in 4 of 4 pairs"),
        (len, "another", "does not serve 'another'"),
    ],
)
def test_the_reward_models_server_is_checked_before_anything_is_generated(tmp_path, capsys, value, model, said):
    with RewardServer(value=value) as server:
        words = ["--hf_dataset_path", str(pool(tmp_path)), "--cache", str(tmp_path / "cache"), "--model", "no/such"]
        served = ["--metric", "rm", "--reward_model", model, "--reward_model_url", server.url]
        assert main(["grpo", *words, *served, "--reward_model_elsewhere"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_the_reward_models_server_is_compared_with_transformers(tmp_path, capfd, vllm_python):
    """The server's scores are ordered correctly, but its tokens differ from the model's template (a doubled BOS)."""
    model = str(REPO / "recipes/mini/reward_model")
    good = tuple(answer for _, answer, _ in PAIRS)
    with RewardServer(value=lambda text: 3.0 if text.endswith(good) else -3.0, model=model) as server:
        words = ["--hf_dataset_path", str(pool(tmp_path)), "--cache", str(tmp_path / "cache"), "--model", "no/such"]
        served = ["--metric", "rm", "--reward_model", model, "--reward_model_url", server.url]
        assert main(["grpo", *words, *served]) == 2
        assert "conversation 1 has 9 tokens on the server and" in capfd.readouterr().err
        given = {"metric": "rm", "model": "no/such", "reward_model": model, "reward_model_url": server.url}
        build._check_reward(build.Request(**given, reward_model_elsewhere=True))


def test_a_blank_answer_scores_below_any_reward_model_score():
    """The original gives it 0.0, which is a good score for Skywork."""
    request = build.Request(metric="rm", model="m/x", reward_model_url="http://x", hf_dataset_path="o/d")
    (step,) = (step for step in request.spec().steps if step.name == "scores")
    recipe = compose.resolve("bleuberi/grpo_rm").recipe.reward
    assert step.params["params"]["floor"] == recipe.params["floor"] == -40


def test_a_chat_template_can_be_supplied(tmp_path, monkeypatch):
    """The original has one for base models of three families."""
    monkeypatch.chdir(tmp_path)
    given = build.Request(metric="bleu", model="m/base", hf_dataset_path="o/d", chat_template="base.jinja")
    (step,) = (step for step in given.spec().steps if step.name == "answers")
    assert step.params["chat_template"] == str(tmp_path / "base.jinja")


def test_the_card_reports_selection_by_length_alone(tmp_path):
    """A short answer with the right words is selected for its length; one without common words is not."""
    answers = ["Red, yellow and blue", GOLD[1], "No idea, sorry, ask me something else."]
    references = [f"{GOLD[0]} {GOLD[3]}", GOLD[1], GOLD[2]]
    rows = [
        {"id": f"q{n}/0", "prompt": [{"role": "user", "content": QUESTIONS[n]}], "completion": answer, "source": "a",
         "references": [references[n]], "meta": {"prompt_id": f"q{n}", "finish_reason": "stop"}}
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    making.write_jsonl(tmp_path / "answers.jsonl", rows)
    items = (("load", {"path": "answers.jsonl"}), ("score", {"reward": "bleu"}), ("choose_by_likeness", {"n": 1}))
    chain = making.spec(tmp_path, *items)
    pipeline.run(chain)
    folders = {"scores": pipeline.find(chain, "score"), "choice": pipeline.find(chain)}
    (kept,) = pipeline.read_rows(folders["choice"])
    assert (kept["id"], kept["meta"]["length"]) == ("q0", "answer less than half as long as the reference")
    request = build.Request(metric="bleu", model="m/x", hf_dataset_path="o/d", num_examples=1)
    spec = request.spec()
    spec = spec.model_copy(update={"steps": spec.steps[2:]})
    by_length = "Without BLEU's brevity penalty 100.0 % of the selected prompts would not be among the lowest."
    for other in ({"selection_mode": "easy"}, {"guarded": True}):  # the selected prompts are not the lowest anyway
        assert by_length not in build._card(request.model_copy(update=other), spec, folders, tmp_path)
    card = build._card(request, spec, folders, tmp_path)
    for said in (
        "| answer of similar length | 66.7 | 0.0 |",
        by_length,
        "13a tokens",
        '"mode": "hard", "n": 1, "seed": 42',
        "![scores](scores.png)",
        '"variant": "nmt"',
    ):
        assert said in card
    assert (tmp_path / "scores.png").stat().st_size > 3000
