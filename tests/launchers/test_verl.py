"""The verl backend: what it refuses before launch, what it renders, and how it reads a training's folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from launchers import envs
from launchers.backends.base import Progress
from launchers.backends.shared import owned
from launchers.backends.verl import Verl, known_keys, leaves
from launchers.checks import preflight
from launchers.errors import UserError
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from tests.conftest import REPO

NAME = "min_o1/grpo"
ONLINE = [
    name for name in compose.recipe_names() if compose.resolve(name).recipe.trainer == "verl"
]  # what is true of one is asked of all


def faults(*settings: str, scale: str | None = None, name: str = NAME) -> list[str]:
    overrides = Overrides(scale, tuple(compose.parse_settings(settings)))
    try:
        _, found = preflight.check(compose.resolve(name, overrides))
    except UserError as error:
        found = list(error.faults)
    return [str(fault) for fault in found]


def rendered(*settings: str, scale: str | None = None, name: str = NAME) -> dict[str, Any]:
    """Every file of the training, YAML and JSON read."""
    overrides = Overrides(scale, tuple(compose.parse_settings(settings)))
    resolved, found = preflight.check(compose.resolve(name, overrides))
    assert found == []
    files = rundir.files(plan.build(resolved, Path("/run")))
    return {
        Path(path).name: yaml.safe_load(text) for path, text in files.items() if path.startswith("train/")
    }  # JSON is YAML


MISTAKES = [
    (["train.global_batch=100"], "train.global_batch", "64, 128"),
    (["train.global_batch=4"], "train.global_batch", "does not split a rollout of 64 prompts × 8 samples = 512"),
    (["rollout.prompts=60"], "train.global_batch", "160, 240"),
    (["train.micro_batch=24"], "train.global_batch", "is not divisible by micro_batch 24 × 4 GPUs"),
    (["rollout.samples=1", "train.global_batch=64", "train.micro_batch=8"], "rollout.samples", "2 or more"),
    (["method=ppo"], "algorithm.advantages", "gae"),
    (["method=ppo", "algorithm.advantages=gae"], "algorithm.truncated", "use keep"),
    (["algorithm.advantages=gae"], "algorithm.advantages", "none, group or group_then_batch"),
    (["algorithm.loss=clip_higher"], "algorithm.clip_high", "0.28"),
    (["algorithm.clip_high=0.3"], "algorithm.loss", "clip_higher"),
    (["algorithm.loss=clip_hihger"], "algorithm.loss", "did you mean 'clip_higher'"),
    (["algorithm.kl=none"], "algorithm.kl_coef", "has no effect without algorithm.kl"),
    (["algorithm.kl_coef=0"], "algorithm.kl_coef", "0 disables algorithm.kl"),
    (["algorithm.truncated=mask"], "algorithm.truncated_penalty", "penalise"),
    (["algorithm.truncated_penalty=0.5"], "algorithm.truncated_penalty", "would reward truncation"),
    (["algorithm.critic.learning_rate=1e-5"], "algorithm.critic", "only gae uses a critic"),
    (["train.max_length=2048"], "train.max_length", "rollout.max_prompt_length"),
    (["train.epochs=1.5"], "train.epochs", "must be an integer"),
    (["train.schedule=linear"], "train.schedule", "constant and cosine"),
    (["train.packing=true"], "train.packing", "does not apply to online RL: remove it"),
    (["reward.name=maht"], "reward.name", "math"),
    (["reward.params.parts=[{reward: math, weight: heavy}]"], "reward.params", "weight"),
    (["rollout.engine=transformers"], "rollout.engine", "use vllm on GPUs"),
    (["rollout.tensor_parallel=3"], "rollout.tensor_parallel", "does not divide the 4 GPUs of a node"),
    (["rollout.temperature=0"], "rollout.temperature", "greater than 0"),
    (["rollout.max_promt_length=10"], "rollout.max_promt_length", "max_prompt_length"),
    (["loggers=[file, trackyo]"], "loggers[1]", "trackio"),
    (["stop.patience=3", "eval.tasks=[math500, no_robots]"], "stop", "differ: math500 accuracy and no_robots bleu"),
    (["stop.patience=3", "eval.tasks=[no_robots]"], "stop.min_gain", "missing: the smallest gain in bleu"),
    (["stop.patience=3", "validation=null"], "stop", "set validation.every"),
    (["validation.every=0"], "validation.every", "greater than 0"),
    (["hardware=h100x9"], "hardware", "h100x8"),
    (["native.critic.optim.lr=1e-5"], "native.critic.optim.lr", "set algorithm.critic.learning_rate"),
    (["native.data.train_batch_size=8"], "native.data.train_batch_size", "set rollout.prompts instead"),
    (["native.trainer.resume_mode=disable"], "native.trainer.resume_mode", "resumes automatically"),
    (["native.trainer.use_v1=true"], "native.trainer.use_v1", "synchronous trainer"),
    (["native.custom_reward_function.path=r.py"], "native.custom_reward_function.path", "verl ignores this legacy key"),
    (["native.reward_model.enable=true"], "native.reward_model.enable", "verl ignores this legacy key"),
    (["native.trainer.esi_redundnat_time=1"], "native.trainer.esi_redundnat_time", "trainer.esi_redundant_time"),
    (["native.trainer.balance_batch=7"], "native.trainer.balance_batch", "bool"),
    (["native.actor_rollout_ref.actor.checkpoint.load_contents=[modle]"],
     "native.actor_rollout_ref.actor.checkpoint.load_contents", "did you mean 'model'"),
    (["native.lr=1"], "native.lr", "train.learning_rate"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "key", "words"), MISTAKES, ids=[" ".join(one[0]) for one in MISTAKES])
def test_a_mistake_is_one_line_that_names_key_and_remedy(settings: list[str], key: str, words: str) -> None:
    found = faults(*settings)
    assert len(found) == 1, found
    assert found[0].split(": ")[1] == key
    assert words in found[0]


def test_a_mistake_names_the_line_it_is_written_in() -> None:
    (found,) = faults("algorithm.clip_low=0.1")
    assert found.startswith("recipes/min_o1/grpo.yaml:") or found.startswith("--set")


def test_online_words_are_refused_where_nothing_is_sampled() -> None:
    (found,) = faults("rollout={prompts: 4, max_prompt_length: 8, max_response_length: 8}", name="min_o1/sft_short")
    assert "rollout: is for online RL, but method is sft" in found


def test_sections_that_online_rl_needs_are_asked_for() -> None:
    found = faults("rollout=null", "reward=null", "algorithm=null")
    assert [one.split(": ")[1] for one in found if "missing" in one] == ["rollout", "reward", "algorithm"]


def test_an_early_stop_knows_the_benchmarks_metric() -> None:
    accuracy = {"name": "accuracy", "unit": "%", "higher_is_better": True}
    assert rendered("stop.patience=3")["stop.json"] == {"patience": 3, "metric": accuracy}
    bleu = rendered("stop={patience: 3, min_gain: 0.01}", "eval.tasks=[no_robots]")["stop.json"]
    assert (bleu["min_gain"], bleu["metric"]["name"], bleu["metric"]["unit"]) == (0.01, "bleu", "")


def test_production_config_says_what_decides_learning() -> None:
    config = rendered()["verl.yaml"]
    actor, rollout = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["rollout"]
    assert config["data"]["train_batch_size"] == 64
    assert actor["ppo_mini_batch_size"] * rollout["n"] == 256
    assert (actor["policy_loss"]["loss_mode"], actor["loss_agg_mode"]) == ("ppo_clip", "token-mean")
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"], actor["use_kl_loss"]) == (0.2, 0.2, False)
    assert config["algorithm"] | {"rollout_correction": None} == {
        "adv_estimator": "adv_group_then_batch", "gamma": 1.0, "lam": 1.0, "use_kl_in_reward": True, "kl_penalty": "k1",
        "kl_ctrl": {"type": "fixed", "kl_coef": 0.01}, "truncated": "penalise", "truncated_limit": 1024,
        "truncated_penalty": -1.0, "rollout_correction": None,
    }  # fmt: skip
    assert (rollout["temperature"], rollout["top_p"], rollout["top_k"], rollout["n"]) == (1.0, 1.0, -1, 8)
    assert config["trainer"]["total_epochs"] == 10
    assert config["data"]["filter_overlong_prompts"] is True


def test_mini_is_the_production_config_and_a_layer() -> None:
    full, mini = rendered(), rendered(scale="mini")
    assert "cpu.yaml" not in full
    same = {key for key, _ in leaves(full["verl.yaml"])} ^ {key for key, _ in leaves(mini["verl.yaml"])}
    assert same == set()
    assert mini["verl.yaml"]["trainer"]["device"] == "cuda"
    assert mini["cpu.yaml"]["trainer"]["device"] == "cpu"


def test_every_benchmark_is_validated_with_its_own_reward() -> None:
    said = rendered()["reward.json"]
    assert set(said["validation"]) == {"gsm8k", "math500", "amc23", "olympiadbench"}
    assert said["validation"]["amc23"]["reward"] == "math"
    assert said["acc"] == "math"


@pytest.mark.parametrize("loss", ["ppo_clip", "sequence_mean", "dr_grpo", "gspo"])
def test_each_loss_brings_its_aggregation(loss: str) -> None:
    actor = rendered(f"algorithm.loss={loss}")["verl.yaml"]["actor_rollout_ref"]["actor"]
    wanted = {"ppo_clip": "token-mean", "dr_grpo": "seq-mean-token-sum-norm"}.get(loss, "seq-mean-token-mean")
    assert actor["loss_agg_mode"] == wanted
    assert actor["loss_scale_factor"] == (1024 if loss == "dr_grpo" else None)


def test_gradients_are_clipped_where_verl_looks() -> None:
    actor = rendered("train.max_grad_norm=0.3")["verl.yaml"]["actor_rollout_ref"]["actor"]
    assert actor["optim"]["clip_grad"] == 0.3
    assert "grad_clip" not in actor


def test_ppo_brings_a_critic() -> None:
    kept = ("algorithm.truncated=keep", "algorithm.truncated_penalty=0")
    config = rendered("method=ppo", "algorithm.advantages=gae", "algorithm.critic.learning_rate=9e-6", *kept)[
        "verl.yaml"
    ]
    assert config["critic"]["optim"]["lr"] == 9e-6
    assert config["algorithm"]["adv_estimator"] == "gae"


def test_native_keys_become_a_layer_and_keep_their_origin() -> None:
    files = rendered("native.trainer.balance_batch=false", "native.data.image_key=pictures")
    assert files["native.yaml"] == {"trainer": {"balance_batch": False}, "data": {"image_key": "pictures"}}
    assert files["origins.json"]["trainer.balance_batch"][0] == "native.trainer.balance_batch"


@pytest.mark.parametrize("name", ONLINE)
def test_every_key_that_the_template_writes_is_owned_or_fixed_by_it(name: str) -> None:
    """A key that the template writes and `native` may set, too, would be said twice without anyone noticing."""
    known = known_keys("verl")["keys"]
    written = {key for key, _ in leaves(rendered(name=name)["verl.yaml"]) if not key.startswith("hydra")}
    unknown = written - known.keys() - {"defaults", "algorithm.truncated", "algorithm.truncated_limit"}
    free = ("ray_kwargs.", "algorithm.truncated", "reward.", "actor_rollout_ref.rollout.custom.")
    assert {key for key in unknown if not key.startswith(free) and "mixed_precision" not in key} == set()


def test_owned_keys_exist_in_both_vocabularies() -> None:
    known = known_keys("verl")["keys"]
    ours = set(compose._all_keys(compose.Recipe))
    written, _ = owned("verl")
    assert {one for one in written.values() if one not in ours} == set()
    strangers = {key for key in written if key not in known and not any(other.startswith(f"{key}.") for other in known)}
    assert {key for key in strangers if "truncated" not in key and "reward_kwargs" not in key
            and "mixed_precision" not in key} == set()  # fmt: skip


def _training(folder: Path, *, planned: int = 20, attempts: dict[str, list[int]] | None = None) -> Path:
    (folder / "metrics").mkdir(parents=True)
    (folder / "planned.json").write_text(json.dumps({"steps": planned}))
    for name, steps in (attempts or {}).items():
        lines = [json.dumps({"step": s, "data": {"training/global_step": s, "timing_s/step": 2.0}}) for s in steps]
        (folder / "metrics" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_progress_is_the_last_attempts(tmp_path: Path) -> None:
    backend = Verl()
    assert backend.progress(tmp_path) is None
    folder = _training(tmp_path / "t", attempts={"20260101T000000": [1, 2, 3, 9], "20260101T000001": [7, 8]})
    assert backend.progress(folder) == Progress(8, 20, {"step_s": 2.0})
    with (folder / "metrics" / "20260101T000002.jsonl").open("w") as torn:
        torn.write('{"step": 9, "da')
    assert backend.progress(folder) == Progress(8, 20, {"step_s": 2.0})


def test_a_training_that_stopped_early_has_done_what_it_planned(tmp_path: Path) -> None:
    folder = _training(tmp_path / "t", attempts={"20260101T000000": [1, 2, 3]})
    (folder / "stopped.json").write_text('{"step": 3, "why": "plateau"}')
    assert Verl().progress(folder) == Progress(3, 3, {"step_s": 2.0})


def test_checkpoints_beyond_the_last_whole_one_are_dropped(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        (checkpoints / f"global_step_{step}" / "actor").mkdir(parents=True)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("20")
    Verl().prepare(tmp_path)
    assert sorted(path.name for path in checkpoints.glob("global_step_*")) == ["global_step_10", "global_step_20"]


def test_the_reason_of_a_failure_is_its_own_line(tmp_path: Path) -> None:
    log = "\n".join(
        [
            "Traceback (most recent call last):",
            "ray.exceptions.RayTaskError(ValueError): \x1b[36mray::TaskRunner.run()\x1b[39m (pid=1)",
            "(TaskRunner pid=1) ValueError: loss ppo_clip is nan",
            "ValueError: loss ppo_clip is nan",
        ]
    )
    assert Verl().reason(log) == "ValueError: loss ppo_clip is nan"
    assert Verl().reason("noise\nerror: recipes/x.yaml:3: data: none\nmore") == "recipes/x.yaml:3: data: none"
    assert Verl().reason("") == "no output"


def test_a_hub_model_is_taken_at_its_revision(tmp_path: Path, mini_model: Path) -> None:
    """With a hub's cache on disk, as a download leaves it."""
    revision = "4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / revision
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(mini_model)
    keys = ["actor_rollout_ref.model.path", "critic.model.path"]
    pinned = [{"model": "some/model", "revision": revision, "keys": keys}]
    (tmp_path / "models.json").write_text(json.dumps(pinned))
    script = (
        "import pathlib, sys\nfrom omegaconf import OmegaConf\n"
        "from launchers.plugins.verl.train import pin_models\n"
        "model = {'model': {'path': 'some/model'}}\n"
        "config = OmegaConf.create({'actor_rollout_ref': model, 'critic': model})\n"
        "pin_models(pathlib.Path(sys.argv[1]), config)\n"
        "print(config.actor_rollout_ref.model.path, config.critic.model.path)\n"
    )
    done = subprocess.run(
        [str(envs.ensure("verl", "cpu")), "-c", script, str(tmp_path)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.stdout.split() == [str(snapshot), str(snapshot)]
    assert rendered()["models.json"] == [{**pinned[0], "model": "Qwen/Qwen2.5-Math-1.5B"}]
    assert "models.json" not in rendered(scale="mini")


ENGINE_DIES = """
import subprocess, sys, time
from launchers.plugins.verl.train import engines_watched
with engines_watched(grace_s=1.0, every_s=0.1):
    subprocess.Popen(["bash", "-c", "exec -a VLLM::EngineCore sleep " + sys.argv[1]])
    time.sleep(float(sys.argv[2]))  # verl, which waits
print("the training ended")
"""


@pytest.mark.parametrize(("engine_s", "training_s", "status"), [("1", "60", 1), ("8", "2", 0)])
def test_a_training_does_not_wait_for_an_engine_that_is_gone(engine_s: str, training_s: str, status: int) -> None:
    done = subprocess.run(
        [str(envs.ensure("verl", "cpu")), "-c", ENGINE_DIES, engine_s, training_s], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)}, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == status
    assert (
        Verl().reason(done.stdout)
        == ["the training ended", "a vLLM engine has died, and verl is waiting for it"][status]
    )
