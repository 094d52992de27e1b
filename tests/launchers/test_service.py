"""The reward model's server beside the parts of a run that ask it: started, checked, watched, stopped, planned."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.core.guard import descendants
from data_prep.core.manifest import read_rows
from data_prep.inference.vllm.reward_check import Refused, problem, served
from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from tests.conftest import REPO, Repo
from tests.fakes.openai_server import Status
from tests.fakes.reward_server import RewardServer
from tests.launchers.test_llamafactory import _wait

URL = '"${reward_model.url}"'
REWARD = f"reward={{name: model, params: {{url: {URL}}}}}"
ONLINE = (REWARD, "validation=null", "stop=null", "controls=null")
ROWS = """{"prompt": "What is 3 + 4?", "completion": "3 + 4 = 7, so the answer is \\\\boxed{7}."}
{"prompt": "What is 3 + 4?", "completion": "\\\\boxed{12}"}
"""


@pytest.fixture
def mini_rm(vllm_python: Path) -> Path:
    return REPO / "recipes/mini/reward_model"


def _events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def _scored(repo: Repo, mini_rm: Path) -> None:
    repo.write("recipes/x/rows.jsonl", ROWS)
    repo.write("recipes/x/data.yaml", f"scored:\n  - load: {{path: rows.jsonl}}\n  - score: {{reward: model, params: "
                f"{{url: {URL}}}}}\n")  # fmt: skip
    layers = "../min_o1/sft_long.yaml, ../min_o1/mini.yaml, ../min_o1/sft_long.mini.yaml"
    repo.write("recipes/x/y.yaml", f"extends: [{layers}]\ndata: scored\nreward_model: {{model: {mini_rm}}}\n")


def test_a_data_step_is_scored_by_a_server_that_lives_as_long_as_the_step(repo: Repo, mini_rm: Path) -> None:
    _scored(repo, mini_rm)
    done = repo.launch("data", "x/y", "--json")
    assert done.returncode == 0, done.stderr
    run = Path(json.loads(done.stdout)["run"])
    (score,) = repo.path.glob(".cache/steps/score-*")
    good, bad = (row["score"] for row in read_rows(score))
    assert good > 0 > bad
    names = [event["event"] for event in _events(run)]
    assert names == ["phase_start", "service_start", "service_end", "phase_end"]
    started = next(event for event in _events(run) if event["event"] == "service_start")
    repo.launch("data", "x/y")
    assert [event["event"] for event in _events(run)][4:] == ["phase_start", "phase_end"]  # all done: no server
    assert list(run.glob("logs/*/reward_model-data.log"))
    assert started["url"].startswith("http://127.0.0.1:")


def test_a_server_that_dies_ends_the_command_with_one_line(repo: Repo, mini_rm: Path, vllm_python: Path) -> None:
    settings = {"model": str(mini_rm), "revision": None, "url": None, "gpus": 0, "template": None,
                "dtype": "float32", "colocated": False}  # fmt: skip
    file = repo.write("run/reward_model.json", json.dumps(settings))
    words = [repo.python, "-m", "launchers.run.service", file, vllm_python, "eval", "--", "sleep", "600"]
    with subprocess.Popen(words, cwd=repo.path, env=repo.environ(), stdout=subprocess.PIPE, text=True) as beside:
        _wait(lambda: (repo.path / "run/events.jsonl").exists(), 120)
        family = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(beside.pid)}
        (server,) = [pid for pid, words in family.items() if b"served-model-name" in words and b"guard.py" not in words]
        os.kill(server, signal.SIGKILL)
        try:
            assert beside.wait(120) == 1
        finally:
            beside.kill()
        _wait(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], 15)  # the engine's, too
        assert beside.stdout is not None
        assert f"error: reward model: vLLM serving {mini_rm} died" in beside.stdout.read()


def test_the_training_and_its_server_share_the_nodes_gpus(mini_rm: Path) -> None:
    words = "hardware=h100x8 train.global_batch=48 train.micro_batch=8 rollout.prompts=48 rollout.tensor_parallel=1"
    settings = (*ONLINE, f"reward_model={{model: {mini_rm}, gpus: 2}}", *words.split())
    resolved = compose.resolve("min_o1/grpo", Overrides(None, tuple(compose.parse_settings(settings))))
    resolved, faults = preflight.check(resolved)
    assert faults == []
    made = plan.build(resolved, Path("/run"))
    files = rundir.files(made)
    assert (made.hardware.gpus_per_node, made.main.hardware.gpus_per_node) == (8, 6)
    assert "n_gpus_per_node: 6\n" in files["train/verl.yaml"]
    assert "--gres=gpu:8\n" in files["job.sbatch"]
    assert json.loads(files["reward_model.json"])["gpus"] == 2
    asked = json.loads(files["train/reward.json"])["params"]["url"]
    assert asked.startswith("service:")
    train = next(command for command in made.commands if command.phase == "train")
    assert train.words[2] == "launchers.run.service"
    assert not any(command.service for command in made.commands if command.phase != "train")


@pytest.mark.parametrize(
    ("settings", "key", "remedy"),
    [
        (["reward_model={model: %s, placement: endpoint}"], "reward_model.url", "missing"),
        (["reward_model={model: %s, url: 'http://a:1'}"], "reward_model.url", "placement: endpoint only"),
        (
            ["reward_model={model: %s, placement: colocated}", "rollout.engine=transformers"],
            "reward_model.placement",
            "needs rollout.engine vllm, not transformers; use own_gpus or endpoint",
        ),
        (["reward_model={model: %s, placement: colocated, gpus: 3}"], "reward_model.placement", "do not divide"),
        (
            ["reward={name: math}", "reward_model={model: %s, placement: colocated}"],
            "reward_model.placement",
            "is for the reward model of online RL only",
        ),
        (["reward_model={model: %s, gpus: 4}"], "reward_model.gpus", "leaves none for training"),
        (["reward_model={model: RLHFlow/ArmoRM-Llama3-8B-v0.1}"], "reward_model.model", "set placement: endpoint"),
        (["reward_model={model: ./recipes/mini/model}"], "reward_model.model", "Qwen2ForCausalLM is no reward model"),
        (["reward_model={model: ./nothing/here}"], "reward_model.model", "nor a Hub id"),
        (["reward_model={model: %s, template: none.jinja}"], "reward_model.template", "no such file"),
        ([], "reward.params", "the recipe has no reward_model"),
    ],
)
def test_a_mistake_in_a_reward_model_is_named(mini_rm: Path, settings: list[str], key: str, remedy: str) -> None:
    pairs = compose.parse_settings([*ONLINE, *(text.replace("%s", str(mini_rm)) for text in settings)])
    _, faults = preflight.check(compose.resolve("min_o1/grpo", Overrides(None, tuple(pairs))))
    assert (key, True) in {(fault.key, remedy in fault.message) for fault in faults}, faults


def test_a_colocated_reward_model_takes_no_gpu_of_the_training(mini_rm: Path) -> None:
    words = "hardware=h100x8 rollout.tensor_parallel=1 train.global_batch=64 train.micro_batch=8 rollout.prompts=64"
    template = REPO / "recipes/mini/model/chat_template.jinja"
    given = f"reward_model={{model: {mini_rm}, gpus: 2, placement: colocated, template: {template}}}"
    resolved = compose.resolve(
        "min_o1/grpo", Overrides(None, tuple(compose.parse_settings([*ONLINE, given, *words.split()])))
    )
    resolved, faults = preflight.check(resolved)
    assert faults == []
    made = plan.build(resolved, Path("/run"))
    files = rundir.files(made)
    assert made.main.hardware.gpus_per_node == 8
    served = yaml.safe_load(files["train/verl.yaml"])["reward"]["reward_model"]
    assert (served["enable"], served["enable_resource_pool"], served["model_path"]) == (True, False, str(mini_rm))
    assert served["rollout"] == {"name": "vllm", "dtype": "float32", "tensor_model_parallel_size": 2,
                                 "engine_kwargs": {"vllm": {"chat_template": str(template)}}}  # fmt: skip
    settings = json.loads(files["reward_model.json"])
    assert (settings["gpus"], settings["colocated"]) == (2, True)  # of the server that is compared with transformers


@pytest.mark.full
def test_a_colocated_reward_model_is_checked_and_then_served_by_the_trainer(repo: Repo, mini_rm: Path) -> None:
    settings = ("reward_model.placement=colocated", "rollout.engine=vllm", "train.steps=2", "second_judge=null",
                "eval=null", "validation=null")  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    done = repo.launch("run", "long_cot/grpo_llama_base_think", "--scale", "mini", *words, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    run = Path(json.loads(done.stdout)["run"])
    names = [event["event"] for event in _events(run)]
    assert names.index("service_start") < names.index("train_step")  # the server that is compared with transformers
    scores = [json.loads(line)["score"] for line in (run / "train/samples/2.jsonl").read_text().splitlines()]
    assert len(set(scores)) > 4


def test_a_colocated_model_of_the_hub_is_pinned() -> None:
    given = "reward_model.placement=colocated"
    resolved = compose.resolve(
        "long_cot/grpo_llama_base_think", Overrides(None, tuple(compose.parse_settings([given])))
    )
    files = rundir.files(plan.build(resolved, Path("/run")))
    pinned = json.loads(files["train/models.json"])[-1]
    asked = resolved.recipe.reward_model
    assert asked is not None
    assert pinned == {"model": asked.model, "revision": asked.revision, "keys": ["reward.reward_model.model_path"]}


@pytest.mark.parametrize(("recipe", "gpus", "fits"), [("dpo", 8, True), ("dpo", 9, False), ("grpo", 8, False)])
def test_a_server_leaves_gpus_to_the_training_that_asks_it(recipe: str, gpus: int, fits: bool) -> None:
    pairs = compose.parse_settings([f"reward_model.gpus={gpus}"])
    _, faults = preflight.check(compose.resolve(f"long_cot/{recipe}_llama_base_think", Overrides(None, tuple(pairs))))
    assert ("reward_model.gpus" in {fault.key for fault in faults}) != fits, faults


GOOD_AND_BAD = [(1.0, 20), (-1.0, 12)] * 4


@pytest.mark.parametrize(
    ("served", "refusal"),
    [
        (GOOD_AND_BAD, None),
        ([(score, tokens + 1) for score, tokens in GOOD_AND_BAD], "21 tokens on the server and 20 in transformers"),
        ([(1 / (1 + 2.718**-score), tokens) for score, tokens in GOOD_AND_BAD], "scores 0.7310 on the server"),
    ],
)
def test_a_server_is_refused_unless_it_scores_as_transformers_does(
    served: list[tuple[float, int]], refusal: str | None
) -> None:
    found = problem(served, GOOD_AND_BAD)
    assert (found is None) if refusal is None else (found is not None and refusal in found)


REFUSE = """
import sys
from transformers import AutoModelForSequenceClassification
from data_prep.inference.vllm import reward_check
source, two_labels, *others = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2, ignore_mismatched_sizes=True)
model.save_pretrained(two_labels)
for folder in (two_labels, *others):
    status = reward_check.main([folder, "http://127.0.0.1:9"])
    print("STATUS", status)
"""


def test_a_model_that_gives_no_score_or_whose_template_is_wrong_is_refused(
    vllm_python: Path, mini_model: Path, mini_rm: Path, tmp_path: Path
) -> None:
    """OpenRLHF #1039, vllm #43062: a head that the checkpoint lacks would be drawn at random. reward-bench #164, trl
    #3853: the tokens begin with one BOS, by their ids."""
    models = [shutil.copytree(mini_rm, tmp_path / name) for name in ("two labels", "no template", "two BOS")]
    for model, template in zip(models[1:], ("", "{{ bos_token }}" * 2), strict=True):
        config = model / "tokenizer_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": "<|endoftext|>"}))
        text = template and template + (mini_rm / "chat_template.jinja").read_text()
        (model / "chat_template.jinja").write_text(text)
    words = [str(vllm_python), "-c", REFUSE, str(mini_rm), *map(str, models), str(mini_model)]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, end = done.stdout.split("STATUS 1\n")
    assert end == ""
    for text, refusal in zip(said, ("has 2 labels", "has no chat template", "writes 2 BOS tokens",
                                    "lacks the weights score.weight: not a reward model"), strict=True):  # fmt: skip
        assert refusal in text.splitlines()[-1], said


def test_a_server_that_cannot_classify_is_refused_in_one_line() -> None:
    """vllm #30312: a server whose task is another one has no /classify."""
    with RewardServer(script=lambda _: Status(404)) as server, pytest.raises(Refused, match="returns no score") as told:
        served(server.url)
    assert "\n" not in str(told.value)


def test_an_endpoint_that_answers_with_probabilities_is_refused() -> None:
    with RewardServer(value=lambda text: [0.1, 0.9]) as server, pytest.raises(Refused, match="returns 2 labels"):
        served(server.url)
    sigmoid = [(1 / (1 + 2.718**-score), tokens) for score, tokens in GOOD_AND_BAD]
    assert "all scores are between 0 and 1" in str(problem(sigmoid, []))
    assert problem(GOOD_AND_BAD, []) is None
    assert problem(sigmoid, sigmoid) is None  # small raw scores


def test_a_server_that_prefers_bad_answers_is_refused() -> None:
    wrong = [(-score, tokens) for score, tokens in GOOD_AND_BAD]
    assert "bad answers score above good ones in 4 of 4 pairs" in str(problem(wrong, wrong))


def test_other_weights_in_the_reward_models_folder_make_another_run(repo: Repo, mini_rm: Path) -> None:
    copy = repo.path / "rm"
    settings = (*ONLINE, f"reward_model={{model: {copy}}}")
    hashes = set()
    for name in ("reward_model", "second_judge"):
        shutil.copytree(mini_rm.parent / name, copy, dirs_exist_ok=True)
        resolved = compose.resolve("min_o1/grpo", Overrides("mini", tuple(compose.parse_settings(settings))))
        hashes.add(rundir.run_hash(plan.build(resolved, repo.path / "run")))
    assert len(hashes) == 2
