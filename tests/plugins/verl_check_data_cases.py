"""check.py on rows and models: run by test_verl_environment.py with the interpreter of verl's environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tests.plugins.verl_check_making import FUNCTION, MODEL, Training, found_in, rows


def test_overlong_prompts_are_counted_and_may_be_left_out(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training.faults(f"data.train_files={training.path}/mixed.parquet") == []
    assert "train prompts over the limit: 3 of 40\n" in capsys.readouterr().out


def test_a_prompt_may_be_as_long_as_the_limit(good: DictConfig) -> None:
    assert found_in(good, ("data.max_prompt_length=17",)) == []
    [(key, message)] = found_in(good, ("data.max_prompt_length=16",))[:1]
    assert key == "data.max_prompt_length"
    left = "0 of 40 prompts remain (40 have more than 16 tokens)"
    assert message == f"{left}, but 4 are needed: use 17, or other rows"


def test_golds_that_the_reward_cannot_read_are_named(training: Training) -> None:
    bad = [{**row, "extra_info": {**row["extra_info"], "id": f"b/{n}"}} for n, row in enumerate(rows(1, gold=" "))]
    training.rows("train.parquet", rows(9) + bad)
    [(key, message)] = training.faults()
    assert key == "data.train_files"
    assert message.startswith("1 of 2 reference answers cannot be used by the reward: b/0 (' ': ")


def test_references_that_the_reward_cannot_compare_with_are_named(training: Training) -> None:
    """Rows have the same gold: it is their references that differ."""
    given: tuple[Any, ...] = (["Yes."], "not a list of one", [" "], None)
    own = [
        {**row, "extra_info": {**row["extra_info"], "id": f"r/{n}", "row": json.dumps({"references": references})}}
        for n, (row, references) in enumerate(zip(rows(4), given, strict=True))
    ]
    training.rows("train.parquet", own)
    training.write("reward.json", json.dumps({"reward": "bleu"}))
    [message] = [message for key, message in training.faults() if key == "data.train_files"]
    assert message.startswith("2 of 4 reference answers cannot be used by the reward: r/2 ")
    assert "no references" in message


def test_bad_reference_answers_of_a_benchmark_are_only_said(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    training.rows("val.parquet", rows(4, "test") + rows(1, "test", gold=" "))
    assert training.faults() == []
    assert "validation: 1 of 2 reference answers cannot be used" in capsys.readouterr().out


@pytest.mark.parametrize("allowed", [False, True])
def test_tests_whose_verdicts_a_program_can_forge_are_refused(training: Training, allowed: bool) -> None:
    source = json.dumps({"kind": "gtest", "source": "TEST(Add, Small) { EXPECT_EQ(add(1, 2), 3); }"})
    training.rows("train.parquet", rows(8, gold=source))
    training.write("reward.json", json.dumps({"reward": "code", "params": {"allow_shared_isolation": allowed}}))
    faults = training.faults()
    assert [key for key, _ in faults] == ([] if allowed else ["data.train_files"])
    assert allowed or "C++ tests as source share a process with the program" in faults[0][1]


def test_validation_needs_a_reward_for_each_benchmark(training: Training) -> None:
    training.write("reward.json", json.dumps({"reward": "math", "validation": {"other": {"reward": "math"}}}))
    [(key, message)] = training.faults()
    assert key == f"{FUNCTION}.reward_kwargs"
    assert "arithmetic" in message


def test_a_server_that_is_not_there_is_not_asked(training: Training) -> None:
    training.write("reward.json", json.dumps({"reward": "model", "params": {"url": "http://127.0.0.1:9"}}))
    assert training.faults() == []


def another_model(folder: Path, **config: Any) -> Path:
    """The mini model's files without weights and chat template, and with other numbers."""
    for source in MODEL.iterdir():
        if source.name.endswith(".json") and "safetensors" not in source.name:
            said = json.loads(source.read_text())
            said.pop("chat_template", None)
            (folder / source.name).write_text(json.dumps({**said, **(config if source.name == "config.json" else {})}))
    return folder


def test_a_model_needs_a_chat_template_that_renders(
    training: Training, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = f"actor_rollout_ref.model.path={another_model(tmp_path_factory.mktemp('model'))}"
    template = "actor_rollout_ref.model.custom_chat_template"
    [(key, message)] = training.faults(path)
    assert key == "actor_rollout_ref.model.path"
    assert "has no chat template: put chat_template.jinja into a copy of it" in message
    assert training.faults(path, f"{template}='x'") == []
    refusing = training.faults(path, f"{template}=\"{{{{ raise_exception('no such role') }}}}\"")
    assert [key for key, _ in refusing] == ["data.train_files", "data.val_files"]
    assert refusing[0][1].endswith("no such role")


def test_lora_targets_of_another_family_are_named(training: Training) -> None:
    lora = ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=16")
    assert training.faults(*lora, "actor_rollout_ref.model.target_modules=[q_proj,mlp.up_proj]") == []
    [(key, message)] = training.faults(*lora, "actor_rollout_ref.model.target_modules=[q_proj,qkv_proj]")
    assert key == "actor_rollout_ref.model.target_modules"
    assert message.startswith("LoRA targets without a module in the model: qkv_proj; it has down_proj, ")


def test_a_model_that_is_not_there_is_named(training: Training) -> None:
    assert training.faults("actor_rollout_ref.model.path=/nowhere/model")[0][0] == "actor_rollout_ref.model.path"
