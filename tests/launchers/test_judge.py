"""The second judge: validation samples scored again, and the best checkpoint among those there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from launchers.checks import preflight
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, parse_settings
from launchers.recipe.schema import SERVICES
from launchers.run import judge
from tests.conftest import Repo
from tests.fakes.openai_server import Status
from tests.fakes.reward_server import RewardServer

PROMPT = [{"role": "user", "content": "Why is the sky blue?"}]


def _training(folder: Path, url: str, samples: dict[int, list[str]]) -> Path:
    """A training's folder with a validation of each step; every step but the first has a checkpoint."""
    rows = [
        {"data_source": source, "prompt": PROMPT, "extra_info": {"id": f"{source}/{i}"}}
        for source in ("chat", "math") for i in range(2)
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "validation.parquet")
    settings = {"validation": str(folder / "validation.parquet"), "tasks": ["chat"]}
    settings["params"] = {"url": url, "retries": 0, "thinking": "think"}
    (folder / "judge.json").write_text(json.dumps(settings))
    (folder / "validation").mkdir()
    for step, texts in samples.items():
        lines = [{"id": f"chat/{i}", "output": text} for i, text in enumerate(texts)]
        lines.append({"id": "math/0", "output": "x" * 999})  # graded by a rule: not the judge's
        (folder / f"validation/{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if step:
            (folder / f"checkpoints/global_step_{step}/actor").mkdir(parents=True)
    return folder


def test_the_checkpoint_that_the_second_judge_prefers_is_noted(tmp_path: Path) -> None:
    samples = {0: ["<think>a</think>" + "z" * 50] * 2, 10: ["<think>a</think>yyyy", "<think>a</think>yy"]}
    samples |= {20: ["<think>" + "long " * 99 + "</think>y"] * 2}
    with RewardServer(value=lambda text: len(text.rpartition(">")[2])) as server:
        assert judge.main([str(_training(tmp_path, server.url, samples))]) == 0
    assert json.loads((tmp_path / judge.JUDGED).read_text()) == {
        "means": {"0": 50.0, "10": 3.0, "20": 1.0}, "samples": 2, "best_step": 10,
    }  # fmt: skip
    assert not any("long" in text for text in server.texts)


def test_too_many_failures_of_the_judge_choose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RewardServer(script=lambda body: Status(400)) as server:
        assert judge.main([str(_training(tmp_path, server.url, {10: ["<think>a</think>b"] * 2}))]) == 1
    assert "2 of 2 samples were not scored: status 400" in capsys.readouterr().out
    assert not (tmp_path / judge.JUDGED).exists()


def test_a_judge_without_samples_to_judge_is_refused(repo: Repo) -> None:
    for change in ("validation=null", "eval.tasks=[math500]"):
        done = repo.launch("plan", "long_cot/grpo_llama_base_think", "--set", change)
        assert done.returncode == 2
        assert "second_judge: scores online RL's validation samples on benchmarks with reward `model`" in done.stderr


def test_an_unknown_benchmark_hides_no_other_fault() -> None:
    settings = parse_settings(["eval.tasks=[wildchat_if_val, nosuch]", "rollout.samples=1"])
    _, faults = preflight.check(compose.resolve("long_cot/grpo_llama_base_think", Overrides(None, tuple(settings))))
    assert {fault.key for fault in faults} == {"eval.tasks.1", "rollout.samples", "train.global_batch"}


V2, V02 = "Skywork/Skywork-Reward-V2-Llama-3.1-8B", "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ([f"reward_model.model={V2}"], True),  # without a revision it may be the judge's
        ([f"second_judge.model={V02}"], True),
        ([f"reward_model.model={V2}", "reward_model.revision=abcdef1"], False),
        ([f"reward_model.model={V2}", f"second_judge.model={V02}"], False),
        ([f"{name}.{key}" for name in SERVICES for key in ("placement=endpoint", "url=http://rm:8000/")], True),
    ],
)
def test_a_judge_that_is_the_reward_model_is_refused(settings: list[str], refused: bool) -> None:
    resolved = compose.resolve("long_cot/grpo_llama_base_think", Overrides(None, tuple(parse_settings(settings))))
    faults = [str(fault) for fault in preflight.check(resolved)[1]]
    assert len(faults) == refused, faults
    assert all("second_judge.model: is the reward model" in fault for fault in faults)


def test_a_reward_model_without_a_revision_is_a_warning(repo: Repo) -> None:
    line = ("plan", "long_cot/grpo_llama_base_think")
    assert "has no revision" not in repo.launch(*line).stdout
    printed = repo.launch(*line, "--set", f"reward_model.model={V2}", "--set", f"second_judge.model={V02}").stdout
    for model, key in ((V2, "reward_model"), (V02, "second_judge")):
        assert re.search(rf"{model} has no revision.*`{key}.revision`", printed.replace("\n", " ")), printed


def test_every_grpo_recipe_has_a_judge_other_than_its_reward_model() -> None:
    for scale in (None, "mini"):
        recipe: Any = compose.resolve("long_cot/grpo_llama_base_think", Overrides(scale)).recipe
        assert recipe.second_judge.model != recipe.reward_model.model
        assert recipe.train.keep_checkpoints * recipe.train.save_every >= 40
