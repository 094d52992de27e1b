"""RLMT's own steps and commands: traces, chat prompts, prompts for online RL, zero models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import making
import pyarrow.parquet as pq
import pytest

from data_prep.core.step import Context, Drop
from data_prep.families.long_cot.__main__ import main
from data_prep.families.long_cot.prompts import ChatPrompts, ChatPromptsParams
from data_prep.families.long_cot.traces import RequestTraces, Traces, TracesParams
from rewards.thinking import thinking

REPO = Path(__file__).resolve().parents[2]
PLAN = "The user wants a plan for a rainy day. Indoors; cheap; three ideas."
ANSWER = "Visit a museum, bake bread, or play chess."


def _run(step, rows, tmp_path):
    results = list(step.apply(rows, Context(tmp_path, tmp_path)))
    return [row for row in results if not isinstance(row, Drop)], [drop for drop in results if isinstance(drop, Drop)]


def _chat(text, *more):
    return {"id": text[:12], "prompt": [{"role": "user", "content": text}, *more]}


def test_english_single_turn_prompts_are_kept_and_the_others_counted_by_reason(tmp_path):
    rows = [
        _chat("What should I do on a rainy day in Edinburgh with two small children?"),
        _chat("Was kann ich an einem regnerischen Tag mit zwei kleinen Kindern in Berlin unternehmen?"),
        _chat("下雨天带两个小孩在北京可以做什么？"),
        _chat("Explain <think> tags to me in two sentences, please."),
        _chat("Repeat after me, please: [THINK] I am thinking [/THINK] and I am done."),
        _chat(
            "Hello there, how are you?", {"role": "assistant", "content": "Fine."}, {"role": "user", "content": "Ok"}
        ),
        _chat("   "),
    ]
    kept, drops = _run(ChatPrompts(ChatPromptsParams()), rows, tmp_path)
    assert kept == rows[:1]
    assert [drop.reason for drop in drops] == [
        "another language",
        "another language",
        "thinking marks in the prompt",
        "thinking marks in the prompt",
        "more than 1 user turns",
        "empty prompt",
    ]


def test_wildchat_rows_contain_no_user_data(tmp_path):
    """WildChat-1M's card: each row and each user turn contains hashed addresses and browser headers."""
    who = {"hashed_ip": "5f2e81", "header": {"user-agent": "Mozilla/5.0"}, "country": "Scotland"}
    asked = {"role": "user", "content": "What should I do on a rainy day in Edinburgh?", **who}
    row = {"conversation_hash": "ab12", "conversation": [asked, {"role": "assistant", "content": ANSWER}], **who}
    making.write_jsonl(tmp_path / "wildchat.jsonl", [row])
    _, (kept,) = making.run(tmp_path, ("load", {"path": "wildchat.jsonl"}), ("chat_prompts", {}))
    assert kept["prompt"] == [{"role": "user", "content": asked["content"]}]
    assert not any(text in json.dumps(kept) for text in ("5f2e81", "Mozilla", "Scotland"))


def test_the_request_is_sent_but_not_trained_on(tmp_path):
    row = _chat("Plan a rainy day.")
    (asked,), _ = _run(RequestTraces(RequestTraces.Params()), [row], tmp_path)
    assert asked["prompt"][0]["content"].startswith("Plan a rainy day.\n\nBefore you answer, plan")
    sample = {**asked, "completion": f"<think>{PLAN}</think>\n<response>{ANSWER}</response>"}
    (trained,), _ = _run(Traces(TracesParams()), [sample], tmp_path)
    assert trained["prompt"] == row["prompt"]
    assert trained["completion"] == f"<think>\n{PLAN}\n</think>\n\n{ANSWER}"
    assert "prompt" not in trained["meta"]


def test_variants_with_and_without_thought_have_the_same_rows(tmp_path):
    samples = [
        {**_chat(f"Question {i}?"), "completion": text}
        for i, text in enumerate(
            (f"<think>{PLAN}</think><response>{ANSWER}</response>", "no marks at all", f"<think>{PLAN}</think>{ANSWER}")
        )
    ]
    think, _ = _run(Traces(TracesParams(format="think")), samples, tmp_path)
    nothink, _ = _run(Traces(TracesParams(format="none")), samples, tmp_path)
    assert [row["id"] for row in think] == [row["id"] for row in nothink] == ["Question 0?"]
    assert nothink[0]["completion"] == ANSWER
    assert thinking("think").answer_of(think[0]["completion"]) == ANSWER


@pytest.mark.parametrize(
    "text",
    [
        f"{PLAN} {ANSWER}",  # no marks
        f"<think>{PLAN}</think> {ANSWER}",  # no answer's mark
        f"<response>{ANSWER}</response>",  # no thought
        f"<think>{PLAN}<think>more</think></think><response>{ANSWER}</response>",  # nested
        f"<think>{PLAN}</think><response>{ANSWER}</response><response>{ANSWER}</response>",  # repeated
        f"<response>{ANSWER}</response><think>{PLAN}</think>",  # reordered
        f"Sure! <think>{PLAN}</think><response>{ANSWER}</response>",  # text before
        f"<think>{PLAN}",  # truncated
        f"<think></think><response>{ANSWER}</response>",
        f"<think>{PLAN}</think><response> </response>",
        f"<think>{PLAN}</think><response>{ANSWER}<|im_end|>\n<|im_start|>user\nThanks!</response>",  # a forged turn
        f"<think>{PLAN}[SYSTEM_PROMPT]</think><response>{ANSWER}</response>",
        f"<think>{PLAN}</think><response>{ANSWER}</respon",  # half an end mark
        f"<think>[THINK]{PLAN}[/THINK]</think><response>{ANSWER}</response>",  # another format's marks
        f"<think>{PLAN}</think><response>[THINK]{PLAN}[/THINK]{ANSWER}</response>",
        f"[THINK]{PLAN}[/THINK]<think>{PLAN}</think><response>{ANSWER}</response>",
        f"```\n<think>{PLAN}</think><response>{ANSWER}</response>\n```",
        f"<Think>{PLAN}</Think><response>{ANSWER}</response>",
    ],
)
def test_malformed_traces_are_dropped(text, tmp_path):
    kept, drops = _run(Traces(TracesParams()), [{**_chat("Question?"), "completion": text}], tmp_path)
    assert (kept, len(drops)) == ([], 1)


@pytest.mark.parametrize("end", ["</response>", "</response><|im_end|>\n", "</response></s>", "<|return|>"])
def test_the_end_token_is_not_part_of_a_trace(end, tmp_path):
    row = {**_chat("Question?"), "completion": f"<think>{PLAN}</think>\n<response>{ANSWER}{end}"}
    (kept,), _ = _run(Traces(TracesParams()), [row], tmp_path)
    assert kept["completion"] == f"<think>\n{PLAN}\n</think>\n\n{ANSWER}"


def test_a_missing_end_tag_is_tolerated_but_not_a_truncated_reply(tmp_path):
    row = {**_chat("Question?"), "completion": f"<think>{PLAN}</think>\n<response>{ANSWER}"}
    kept, _ = _run(Traces(TracesParams()), [row], tmp_path)
    assert kept[0]["completion"].endswith(ANSWER)
    _, drops = _run(Traces(TracesParams()), [{**row, "meta": {"finish_reason": "length"}}], tmp_path)
    assert [drop.reason for drop in drops] == ["truncated"]


@pytest.mark.parametrize(
    "text", ["{}", "<response>{}</response>", "<response>{}", "<think></think><response>{}</response>"]
)
def test_a_reasoning_models_own_thought_counts_as_the_plan(text, tmp_path):
    row = {**_chat("Question?"), "completion": text.format(ANSWER), "meta": {"reasoning": PLAN}}
    (trained,), _ = _run(Traces(TracesParams()), [row], tmp_path)
    assert trained["completion"] == f"<think>\n{PLAN}\n</think>\n\n{ANSWER}"
    assert trained["meta"] == {}
    (twin,), _ = _run(Traces(TracesParams(format="none")), [row], tmp_path)
    assert twin["completion"] == ANSWER


@pytest.mark.parametrize("format", ["think", "none"])
def test_a_reasoning_models_thought_with_a_tag_is_dropped(format, tmp_path):
    for completion in (ANSWER, f"<think></think><response>{ANSWER}</response>", ""):
        row = {**_chat("Question?"), "completion": completion, "meta": {"reasoning": f"{PLAN} <response>"}}
        kept, drops = _run(Traces(TracesParams(format=format)), [row], tmp_path)
        assert (kept, len(drops)) == ([], 1)


def test_prepare_takes_the_originals_options_and_writes_its_columns(tmp_path, capsys):
    entries = [
        {"instruction": f"Write a haiku about the number {i}.", "id": f"w{i}", "source": "wildchat"} for i in range(12)
    ]
    entries += [
        {"messages": [{"role": "user", "content": "And one about rain?"}, {"role": "assistant", "content": "Drops…"}]},
        {"messages": [{"role": "assistant", "content": "Hello"}]},
        {"messages": [{"role": "system", "content": "Answer in verse."}]},
        {"messages": [{"role": "user", "content": "What is it?"}, {"role": "tool", "content": "42"}]},
        {"instruction": "write a  haiku about the number 3."},
        {"text": "neither"},
    ]
    source = tmp_path / "prompts.json"
    source.write_text(json.dumps(entries))
    words = [
        "prepare",
        "--input_json",
        str(source),
        "--local_dir",
        str(tmp_path / "data"),
        "--num_validation_examples",
        "3",
    ]
    assert main(words) == 0
    out = capsys.readouterr()
    assert "dropped 3: no user turn at the end" in out.err
    assert "dropped 1: duplicate prompt" in out.err
    assert "dropped 1: neither instruction nor messages" in out.err
    assert "num_examples" not in out.err
    train, held_out = (pq.read_table(path).to_pylist() for path in out.out.split())
    assert (len(train), len(held_out)) == (10, 3)
    assert set(train[0]) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
    assert {row["prompt"][-1]["role"] for row in train + held_out} == {"user"}
    assert not {row["extra_info"]["index"] for row in train} & {row["extra_info"]["index"] for row in held_out}
    again = [path.read_bytes() for path in sorted((tmp_path / "data").iterdir())]
    assert main(words) == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "data").iterdir())] == again
    capsys.readouterr()
    assert main([*words, "--num_examples", "4"]) == 0
    assert "dropped 6: beyond num_examples" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--num_validation_examples", "--num_examples"])
def test_prepare_rejects_a_negative_number(tmp_path, capsys, option):
    source = tmp_path / "prompts.json"
    source.write_text(json.dumps([{"instruction": f"Write a haiku about the number {i}."} for i in range(12)]))
    assert main(["prepare", "--input_json", str(source), "--local_dir", str(tmp_path / "data"), option, "-1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option.removeprefix("--") in line
    assert not (tmp_path / "data").exists()


def test_prepare_reports_errors_in_one_line(tmp_path, capsys):
    source = tmp_path / "prompts.json"
    source.write_text('{"instruction": "one"}')
    assert main(["prepare", "--input_json", str(source)]) == 2
    assert capsys.readouterr().err == f"{source}: expected a JSON list of entries, got dict\n"


def test_a_zero_model_is_the_base_model_with_another_template_and_end_token(tmp_path, mini_model, capsys):
    out = tmp_path / "zero"
    assert main(["zero", "--model", str(mini_model), "--out", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == (mini_model / "model.safetensors").read_bytes()
    tokenizer = json.loads((out / "tokenizer_config.json").read_text())
    assert "<query>" in tokenizer["chat_template"]
    about = json.loads((out / "zero.json").read_text())
    assert about["stop"] == ["</response>"]
    assert json.loads((mini_model / "tokenizer_config.json").read_text()) != tokenizer  # the base model stays as it was
    assert capsys.readouterr().out == f"{out}\n"


def test_a_zero_model_has_its_own_and_its_base_models_end_tokens(tmp_path, mini_model):
    base = tmp_path / "base"
    shutil.copytree(mini_model, base)
    (turn, own) = (283, 282)  # <|im_end|>, <|endoftext|>
    for name in ("config.json", "generation_config.json"):
        values = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps({**values, "eos_token_id": own}))
    assert main(["zero", "--model", str(base), "--out", str(tmp_path / "zero")]) == 0
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "zero" / name).read_text())["eos_token_id"] == [turn, own]


def _without_safetensors(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def _without_an_end_token(base):
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    (base / "tokenizer.json").write_text(json.dumps({**tokenizer, "added_tokens": []}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_safetensors, "no *.safetensors: pickled weights are not loaded"),
        (_without_an_end_token, "has no id"),
        (lambda base: (base / "tokenizer_config.json").write_text("[]"), "expected a JSON object"),
        (lambda base: (base / "tokenizer.json").unlink(), "tokenizer.json"),
    ],
)
def test_a_failed_copy_of_a_base_model_leaves_nothing(spoil, message, tmp_path, mini_model, capsys):
    base = tmp_path / "base"
    shutil.copytree(mini_model, base)
    spoil(base)
    assert main(["zero", "--model", str(base), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_only_files_that_are_copied_are_fetched_from_the_hub(tmp_path, mini_model, monkeypatch):
    asked = {}

    def snapshot_download(model, **options):
        asked.update(options)
        return str(mini_model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert main(["zero", "--model", "meta-llama/Llama-3.1-8B", "--out", str(tmp_path / "out")]) == 0
    assert asked["allow_patterns"] == ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
    assert asked["ignore_patterns"] == ["*/*"]  # other weights of the same model: original/, onnx/


def test_a_folder_without_weights_is_rejected(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["zero", "--model", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
