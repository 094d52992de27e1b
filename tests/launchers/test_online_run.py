"""A whole online RL run as its user starts it: through make, with the real verl, and killed on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launchers import envs
from tests.conftest import Repo
from tests.launchers.test_llamafactory import _wait
from tests.launchers.test_whole_run import _assert_nothing_is_left, _json, _make, _run_of, _shared_memory, _started

RUN = "min_o1/grpo"
TINY = (
    "train.steps=16 train.save_every=2 train.global_batch=16 train.micro_batch=16 rollout.prompts=4 rollout.samples=4 "
    "eval.limit=8 eval.before=false eval=null validation=null"
)
# Processes of a training, by how their titles begin: Ray gives its workers titles of their own.
DRIVER, TASK, WORKER, REWARD = (
    r".*launchers\.plugins\.verl\.train ",
    "ray::TaskRunner",
    "ray::WorkerDict",
    "ray::RewardLoop",
)
RAYLET, ENGINE = r".*/raylet/raylet ", "VLLM::EngineCore"


def _titles(repo: Repo) -> dict[int, str]:
    mark, found = f"PYTHONPATH={repo.path}\0".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has just ended
    return found


def _kill_one(repo: Repo, title: str) -> None:
    pids = [pid for pid, words in _titles(repo).items() if re.match(title, words)]
    assert pids, f"no process {title}: {sorted(_titles(repo).values())}"
    os.kill(pids[0], signal.SIGKILL)


def _last(run: Path) -> int:
    path = run / "train" / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(path.read_text()) if path.exists() else 0


def _metrics(run: Path) -> list[tuple[str, list[int]]]:
    """Steps by attempt."""
    found = []
    for path in sorted((run / "train" / "metrics").glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found.append((path.stem, [line["step"] for line in lines if "training/global_step" in line["data"]]))
    return found


def _logits(model: Path, repo: Repo) -> Any:
    """Of the merged model, read by transformers in verl's environment."""
    script = (
        "import sys, json, torch\nfrom transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "print(json.dumps(model(torch.arange(8)[None]).logits[0, -1, :8].tolist()))\n"
    )
    done = subprocess.run(
        [str(envs.ensure("verl", "cpu")), "-c", script, str(model)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", [DRIVER])
@pytest.mark.full
def test_a_training_killed_between_checkpoints_goes_on_from_the_last(repo: Repo, victim: str, mini_model: Path) -> None:
    _killed_and_finished(repo, victim, mini_model)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", [TASK, WORKER, REWARD, RAYLET], ids=["task", "worker", "reward", "raylet"])
def test_a_training_survives_the_death_of_any_process(repo: Repo, victim: str, mini_model: Path) -> None:
    _killed_and_finished(repo, victim, mini_model)


def _killed_and_finished(repo: Repo, victim: str, mini_model: Path, settings: str = TINY) -> None:
    words = (RUN, "SCALE=mini", f"SET={settings}")
    with _started(repo, *words) as process:
        _wait(lambda: process.poll() is not None or any(_last(run) >= 2 for run in repo.path.glob("runs/*/*/*-*")), 700)
        assert process.poll() is None, (repo.path / "make.log").read_text()[-3000:]
        shared = _shared_memory(_titles(repo))
        _kill_one(repo, victim)
        assert process.wait(200) != 0  # a death is a failure with a reason, never a hang
    _assert_nothing_is_left(repo)
    assert not [path for path in shared if path.exists()]
    run = _run_of(repo, RUN)
    saved = _last(run)
    noted = run / "train" / "ray.json"
    rays = Path(_json(noted)["folder"]) if noted.exists() else None  # whom the kill left the time, has cleaned up
    done = _make(repo, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    _assert_nothing_is_left(repo)
    assert not noted.exists()
    assert rays is None or not rays.exists()
    (_, first), (_, second) = _metrics(run)
    assert (first[0], second[0], second[-1]) == (1, saved + 1, 16)
    assert _json(run / "train" / "merged" / "done.json") == {"step": 16}
    assert _logits(run / "train" / "merged", repo) != _logits(mini_model, repo)
    page = (run / "report.html").read_text()
    assert "training resumed after an interruption" in page
    assert "KL to the initial model" in page
    again = _make(repo, *words)
    assert "already finished" in again.stderr


@pytest.mark.full
def test_a_training_that_is_asked_to_stop_saves_its_step_and_resumes_there(repo: Repo) -> None:
    small = f"{TINY} train.steps=3 train.save_every=5".split()
    words = (RUN, "--scale", "mini", *(word for setting in small for word in ("--set", setting)))
    run = Path(repo.launch("render", *words).stdout.strip())
    (run / "stop").touch()
    stopped = repo.launch("run", *words)
    assert (stopped.returncode, "stopped after 1 of 3 steps" in stopped.stderr) == (1, True), stopped.stderr
    assert (_last(run), (run / "train" / "merged").exists()) == (1, False)
    (run / "stop").unlink()
    done = repo.launch("run", *words)
    assert done.returncode == 0, done.stderr
    assert [steps for _, steps in _metrics(run)] == [[1], [2, 3]]
    assert _json(run / "train" / "merged" / "done.json") == {"step": 3}
    _assert_nothing_is_left(repo)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_dead_engine_ends_the_training_and_it_resumes(repo: Repo, mini_model: Path) -> None:
    """With vLLM itself as rollout engine."""
    _killed_and_finished(repo, ENGINE, mini_model, f"{TINY} rollout.engine=vllm")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_ray_that_somebody_left_running_is_not_joined(repo: Repo, tmp_path: Path) -> None:
    ray = envs.ensure("verl", "cpu").parent / "ray"
    environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{ray.parent}:{os.environ['PATH']}"}
    start = [str(ray), "start", "--head", "--port=0", "--num-cpus=1", "--include-dashboard=false", "--block"]
    with (
        (tmp_path / "ray.log").open("w+") as log,
        subprocess.Popen(start, env=environ, stdout=log, stderr=log) as other,
    ):
        try:
            _wait(lambda: "Ray runtime started" in (tmp_path / "ray.log").read_text(), 60)
            done = _make(repo, RUN, "SCALE=mini", f"SET={TINY} train.steps=2")
            assert done.returncode == 0, done.stderr[-3000:]
            (said,) = _run_of(repo, RUN).glob("logs/*/train-after.log")
            assert "Started a local Ray instance" in said.read_text()
            assert other.poll() is None, "the other's cluster still stands"
        finally:
            other.terminate()
            other.wait(60)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_ppo_trains_a_critic_and_resumes_it(repo: Repo, mini_model: Path) -> None:
    """The critic's weights and Adam moments come back, too: both optimizers have taken every step at the end."""
    gae = "method=ppo algorithm.advantages=gae algorithm.critic.learning_rate=1e-3 algorithm.truncated=keep"
    _killed_and_finished(repo, DRIVER, mini_model, f"{TINY} {gae} algorithm.truncated_penalty=0")
    run = _run_of(repo, RUN)
    for metrics in sorted((run / "train" / "metrics").glob("*.jsonl")):
        last = json.loads(metrics.read_text().splitlines()[-1])["data"]
        assert last["critic/vf_loss"] > 0
        assert last["critic/grad_norm"] > 0
        assert "actor/reward_kl_penalty" in last
    assert _optimizer_steps(run / "train" / "checkpoints" / "global_step_16") == {"actor": 16, "critic": 16}


def _optimizer_steps(checkpoint: Path) -> dict[str, int]:
    """Steps that Adam has counted for each network, read in verl's environment."""
    script = (
        "import sys, json, torch\nfrom pathlib import Path\n"
        "def steps(state): return {int(values['step']) for values in state['state'].values()}\n"
        "files = {name: next(Path(sys.argv[1], name).glob('optim_*.pt')) for name in ('actor', 'critic')}\n"
        "print(json.dumps({name: max(steps(torch.load(file, weights_only=False))) for name, file in files.items()}))\n"
    )
    words = [str(envs.ensure("verl", "cpu")), "-c", script, str(checkpoint)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counted: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counted


@pytest.mark.timeout(900)
@pytest.mark.full
def test_adapters_are_in_the_model_that_is_evaluated(repo: Repo, mini_model: Path) -> None:
    settings = TINY.replace("steps=16", "steps=2").split()
    words = [word for setting in settings for word in ("--set", setting)]
    lora = ("--set", "train.lora={rank: 8, alpha: 32}", "--set", "train.learning_rate=0.01")
    for verb in ("data", "train"):
        done = repo.launch(verb, RUN, "--scale", "mini", *words, *lora)
        assert done.returncode == 0, done.stderr[-3000:]
    merged = _run_of(repo, RUN) / "train" / "merged"
    assert not (merged / "lora_adapter").exists()
    trained, untrained = _logits(merged, repo), _logits(mini_model, repo)
    assert max(abs(one - other) for one, other in zip(trained, untrained, strict=True)) > 1e-3
