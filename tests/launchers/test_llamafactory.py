"""LlamaFactory itself: it parses every rendered config, trains, resumes after a kill, and fails in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from launchers import envs
from launchers.backends.llamafactory import LlamaFactory, known_template
from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from tests.conftest import REPO, Repo

PARSE = """
import json, os, sys
from omegaconf import OmegaConf
from llamafactory.hparams import get_train_args
for path in sys.argv[1:]:
    given = OmegaConf.to_container(OmegaConf.load(path))
    on_a_cpu = {"use_cpu": True, "deepspeed": None, "enable_liger_kernel": False}  # what wants a GPU's packages
    model, data, training, tuning, _ = get_train_args({**given, **on_a_cpu})
    print(json.dumps({"path": path, "model": model.model_name_or_path, "template": data.template,
        "cutoff_len": data.cutoff_len, "learning_rate": training.learning_rate, "stage": tuning.stage,
        "accumulation": training.gradient_accumulation_steps, "warmup_ratio": training.warmup_ratio,
        "scheduler": str(training.lr_scheduler_type.value), "min_lr": training.lr_scheduler_kwargs,
        "beta2": training.adam_beta2, "bf16": training.bf16, "packing": data.packing,
        "lora_rank": tuning.lora_rank if tuning.finetuning_type == "lora" else None,
        "fsdp_version": (getattr(training, "fsdp_plugin_args", None) or {}).get("fsdp_version")}))
"""
ONE_PROCESS = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29711",
}
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


# Every recipe as it stands, and with what a user may swap.
VARIANTS = (
    [],
    ["native.deepspeed=null", "native.fsdp_config=full_shard"],
    ["train.lora.rank=16", "train.packing=true"],
    ["trainer=llamafactory"],  # of torchtune's recipes
)


def _rendered(tmp_path: Path) -> dict[Path, compose.Resolved]:
    found = {}
    names = [name for name in compose.recipe_names() if compose.resolve(name).recipe.trainer == "llamafactory"]
    cases = [(name, scale, 0) for name in names for scale in (None, *compose.scales_of(name))]
    cases += [(name, None, variant) for name in names for variant in (1, 2)]
    tuned = [name for name in compose.recipe_names() if compose.resolve(name).recipe.trainer == "torchtune"]
    cases += [(name, scale, 3) for name in tuned for scale in (None, *compose.scales_of(name))]
    for name, scale, variant in cases:
        pairs = compose.resolve(name).recipe.method == "dpo"  # which are not packed
        said = [one for one in VARIANTS[variant] if not (pairs and one == "train.packing=true")]
        settings = tuple(compose.parse_settings(said))
        resolved, faults = preflight.check(compose.resolve(name, Overrides(scale, settings)))
        assert not faults
        made = plan.build(resolved, tmp_path / name / f"{scale}-{variant}")
        for job in made.jobs:
            for file, text in made.backend.render(job, made.run).items():
                path = made.run / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                if path.name == "llamafactory.yaml":
                    found[path] = job.resolved
    return found


def test_its_own_argument_classes_accept_every_rendered_config(tmp_path: Path, llamafactory_python: Path) -> None:
    rendered = _rendered(tmp_path)
    done = subprocess.run(
        [str(llamafactory_python), "-c", PARSE, *map(str, rendered)],
        env={**os.environ, **QUIET, **ONE_PROCESS}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    read = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"path"')]
    assert len(read) == len(rendered) > 0
    for one in read:
        recipe = rendered[Path(one["path"])].recipe
        assert one["cutoff_len"] == recipe.train.max_length - recipe.train.packing  # it keeps a token for packing
        assert one["stage"] == recipe.method
        assert one["learning_rate"] == recipe.train.learning_rate
        assert one["warmup_ratio"] == recipe.train.warmup_ratio
        assert one["beta2"] == recipe.train.adam_beta2
        assert one["template"] == known_template(recipe.model)
        assert one["lora_rank"] == (recipe.train.lora.rank if recipe.train.lora else None)
        assert one["packing"] == recipe.train.packing
        assert one["fsdp_version"] == (2 if recipe.native.get("fsdp_config") else None)
        assert one["bf16"] == (recipe.train.precision == "bf16")
        names = {"cosine": "cosine", "constant": "constant_with_warmup", "linear": "linear"}
        expected = "cosine_with_min_lr" if recipe.train.min_learning_rate_ratio else names[recipe.train.schedule]
        assert one["scheduler"] == expected


def test_the_list_of_its_keys_is_current(llamafactory_python: Path) -> None:
    done = subprocess.run(
        [str(llamafactory_python), "-m", "launchers.plugins.llamafactory.dump_keys"],
        cwd=REPO, env={**os.environ, **QUIET}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == json.loads((REPO / "configs" / "native" / "llamafactory.json").read_text())


SMALL = [
    "--scale", "mini", "--set", "eval=null", "--set", "train.steps=8", "--set", "train.save_every=3",
    "--set", "train.global_batch=8", "--set", "train.micro_batch=4",
]  # fmt: skip


def _rows(repo: Repo, count: int = 64) -> Path:
    rows = [{"prompt": f"{n}+{n}=?", "solution": f"\\boxed{{{2 * n}}}", "answer": str(2 * n)} for n in range(count)]
    return repo.write("rows of 'mine' $(x).jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _losses(run: Path) -> dict[int, float]:
    lines = (run / "train" / "trainer_log.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    return {one["current_steps"]: one["loss"] for one in read if "loss" in one}


def _processes_of(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in words:
                found.append(words)
    return found


def _wait(what: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_a_killed_training_resumes_to_the_same_losses(repo: Repo) -> None:
    data = f"data={_rows(repo)}"
    whole = repo.launch("run", "min_o1/sft_short", *SMALL, "--set", data, "--out", "whole runs", "--json")
    assert whole.returncode == 0, whole.stderr
    straight = Path(json.loads(whole.stdout)["run"])
    assert sorted(_losses(straight)) == list(range(1, 9))

    words = [
        str(repo.python),
        "-m",
        "launchers",
        "run",
        "min_o1/sft_short",
        *SMALL,
        "--set",
        data,
        "--out",
        "killed",
    ]
    process = subprocess.Popen(words, cwd=repo.path, env=repo.environ(), stderr=subprocess.DEVNULL)
    _wait(lambda: list(repo.path.glob("killed/min_o1/sft_short/*/train/checkpoint-3/trainer_state.json")), 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait(lambda: not _processes_of(str(repo.path / "killed")), 15)
    (run,) = repo.path.glob("killed/min_o1/sft_short/*-*")
    assert not (run / "train" / "train_results.json").exists(), "killed too late to prove anything"

    (run / "train" / "checkpoint-999").mkdir()  # what a kill in the middle of saving leaves
    again = repo.launch("run", "min_o1/sft_short", *SMALL, "--set", data, "--out", "killed", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["run"] == str(run), "the same command goes on with the same run"
    assert _losses(run) == _losses(straight)
    log = "".join(path.read_text() for path in run.glob("logs/*/train-after.log"))
    assert "Resuming training from" in log


@pytest.mark.full
def test_a_training_that_is_asked_to_stop_saves_its_step_and_resumes_there(repo: Repo) -> None:
    words = ("min_o1/sft_short", *SMALL, "--set", f"data={_rows(repo)}")
    run = Path(repo.launch("render", *words).stdout.strip())
    (run / "stop").touch()
    stopped = repo.launch("run", *words)
    assert (stopped.returncode, "stopped after 1 of 8 steps" in stopped.stderr) == (1, True), stopped.stderr
    assert [path.name for path in (run / "train").glob("checkpoint-*")] == ["checkpoint-1"]
    (run / "stop").unlink()
    done = repo.launch("run", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(_losses(run)) == list(range(1, 9))
    logs = [path.read_text() for path in sorted(run.glob("logs/*/train-after.log"))]
    assert "stopped on request, with a checkpoint at step 1" in logs[0]
    assert "Resuming training from" in logs[1]


@pytest.mark.full
def test_two_processes_train_as_one(repo: Repo) -> None:
    """torchrun and gloo on a CPU: the same global batch, half the accumulation."""
    profile = (repo.path / "configs" / "hardware" / "cpu.yaml").read_text()
    repo.write("configs/hardware/cpu2.yaml", profile.replace("gpus_per_node: 0", "gpus_per_node: 2"))
    options = [*SMALL, "--set", f"data={_rows(repo)}", "--set", "train.steps=2", "--json"]
    one = json.loads(repo.launch("run", "min_o1/sft_short", *options).stdout)
    done = repo.launch("run", "min_o1/sft_short", *options, "--set", "hardware=cpu2")
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert "--nproc-per-node 2" in (Path(two["run"]) / "local.sh").read_text()
    batches = [json.loads((Path(run["run"]) / "plan.json").read_text())["batch"] for run in (one, two)]
    assert [(b["global"], b["accumulation"], b["world"]) for b in batches] == [(8, 2, 1), (8, 1, 2)]
    first, second = _losses(Path(one["run"])), _losses(Path(two["run"]))
    assert first.keys() == second.keys() == {1, 2}
    assert all(abs(first[step] - second[step]) < 0.25 * first[step] for step in first)  # rows are dealt differently


@pytest.mark.full
def test_two_nodes_read_their_rank_from_the_environment(repo: Repo) -> None:
    profile = (repo.path / "configs" / "hardware" / "cpu.yaml").read_text()
    profile = profile.replace("gpus_per_node: 0", "gpus_per_node: 1").replace("nodes: 1", "nodes: 2")
    repo.write("configs/hardware/nodes2.yaml", profile)
    options = [*SMALL, "--set", f"data={_rows(repo)}", "--set", "train.steps=1", "--set", "hardware=nodes2"]
    rendered = repo.launch("render", "min_o1/sft_short", *options)
    assert rendered.returncode == 0, rendered.stderr
    run = Path(rendered.stdout.strip())
    alone = subprocess.run(
        ["bash", run / "local.sh", "data", "train"], env=repo.environ(), capture_output=True, text=True
    )
    assert alone.returncode != 0
    assert "needs 2 nodes: submit it (make sbatch/…), or start it on each with NODE_RANK" in alone.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = []
    for rank in ("0", "1"):
        with (run / f"node{rank}.txt").open("wb") as said:
            environ = {**repo.environ(), "NODE_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            words = ["bash", run / "local.sh", "data", "train"]
            nodes.append(subprocess.Popen(words, env=environ, stdout=said, stderr=said))
    _wait(lambda: any(node.poll() for node in nodes) or all(node.poll() == 0 for node in nodes), 300)
    said = [path.read_text() for path in (*sorted(run.glob("node*.txt")), *sorted(run.glob("logs/*/*.log")))]
    assert [node.poll() for node in nodes] == [0, 0], "\n---\n".join(said)
    assert json.loads((run / "train" / "trainer_state.json").read_text())["global_step"] == 1


def test_a_failing_training_is_one_line_that_names_the_log(repo: Repo) -> None:
    words = [
        *SMALL,
        "--set",
        f"data={_rows(repo)}",
        "--set",
        "native.mask_history=true",
        "--set",
        "train.packing=true",
    ]
    broken = repo.path / "model"
    subprocess.run(["cp", "-r", str(REPO / "recipes" / "mini" / "model"), str(broken)], check=True)
    (broken / "model.safetensors").write_bytes(b"not weights")
    done = repo.launch("run", "min_o1/sft_short", *words, "--set", f"model={broken}")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: train after: ")
    assert "safetensors" in errors[0].lower()
    log = next(line for line in done.stderr.splitlines() if "log: " in line).split("log: ")[1]
    assert Path(log).is_file()
    assert "Traceback" not in done.stderr


def test_a_short_run_fails(tmp_path: Path) -> None:
    from launchers.run.supervise import Training, _verdict

    output = tmp_path / "train"
    output.mkdir()
    (output / "trainer_state.json").write_text('{"global_step": 5, "max_steps": 8}')
    (tmp_path / "log").write_text("")
    assert _verdict(0, Training(LlamaFactory(), output, 8), tmp_path / "log", 0) == "stopped after 5 of 8 steps"
    (output / "trainer_state.json").write_text('{"global_step": 8, "max_steps": 8}')
    assert _verdict(0, Training(LlamaFactory(), output, None), tmp_path / "log", 0) is None
    told = _verdict(0, Training(LlamaFactory(), output, 9), tmp_path / "log", 0)
    assert told == "the trainer planned 8 steps, the rows give 9: it has dropped rows"


LOGS = {
    "Traceback (most recent call last):\n  File x\nKeyError: 'nope'\n": "KeyError: 'nope' (a column",
    "ValueError: bad\n\ntorch.distributed.elastic.errors.ChildFailedError: \n==\nFailures:\n": "ValueError: bad",
    "[rank0]: RuntimeError: Cannot find valid samples, check x.\n": "RuntimeError: Cannot find valid samples",
    "loading\nKilled\n": "Killed",
    "": "no output",
}


@pytest.mark.parametrize("log", LOGS)
def test_the_reason_is_the_line_that_helps(log: str) -> None:
    assert LlamaFactory().reason(log).startswith(LOGS[log])


def test_rendering_again_gives_the_same_bytes_and_no_secret(repo: Repo) -> None:
    done = repo.launch("render", "min_o1/sft_short", HF_TOKEN="hf_secret", OPENAI_API_KEY="sk-secret")
    run = Path(done.stdout.strip())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert before
    assert not any(b"secret" in text for text in before.values())
    for path in before:
        if path.name not in ("run.json", "written.json"):
            path.unlink()
    again = repo.launch("render", str(run))
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_directory_stands_by_itself(repo: Repo) -> None:
    """The recipe may change, the directory may be asked from elsewhere: the run stays what it was."""
    repo.write("mine/rows.jsonl", '{"prompt": "1+1?", "completion": "\\\\boxed{2}", "answer": "2"}\n')
    (repo.path / "mine").chmod(0o755)
    render = [str(repo.python), "-m", "launchers", "render", "min_o1/sft_short", "--set", "data=rows.jsonl"]
    done = subprocess.run(render, cwd=repo.path / "mine", env=repo.environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    recipe = repo.path / "recipes" / "min_o1" / "sft_short.yaml"
    recipe.write_text(recipe.read_text().replace("1.0e-5", "3.0e-5"))
    assert repo.launch("render", str(run)).returncode == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert json.loads(repo.launch("plan", str(run), "--json").stdout)["run"] == str(run)
    refused = repo.launch("plan", str(run), "--scale", "mini")
    assert (refused.returncode, "options cannot change an existing run" in refused.stderr) == (2, True)


INHERITED = {
    "RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "10.9.8.7", "MASTER_PORT": "29500",
    "PET_NNODES": "2", "RAY_ADDRESS": "10.9.8.7:6379", "FORCE_TORCHRUN": "1", "http_proxy": "http://10.9.8.7:3128",
    "CUDA_VISIBLE_DEVICES": "5",
}  # fmt: skip
ADAPTERS = ["run", "min_o1/sft_short", *SMALL, "--set", "train.steps=2", "--set", "train.lora={rank: 4}", "--json"]


@dataclass(frozen=True)
class Tuned:
    """A run that has trained adapters, and the command line that started it."""

    repo: Repo
    words: list[str]
    run: Path
    stderr: str


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, make_repo: Callable[[Path], Repo]) -> Tuned:
    """Started from a shell or a scheduler's job that has set what would end or hang a training."""
    folder = tmp_path_factory.mktemp("tuned")
    repo, temporary = make_repo(folder / "repo"), folder / ("t" * 90)
    temporary.mkdir()
    home = folder / "home" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    home.mkdir(parents=True)
    for package in ("yaml", "torch"):
        (home / f"{package}.py").write_text("raise ImportError('a package of the home folder')\n")
    words = [*ADAPTERS, "--set", f"data={_rows(repo)}", "--out", str(folder / "runs")]
    done = repo.launch(*words, **INHERITED, TMPDIR=str(temporary), PYTHONUSERBASE=str(folder / "home"))
    assert done.returncode == 0, done.stderr
    return Tuned(repo, words, Path(json.loads(done.stdout)["run"]), done.stderr)


def test_a_training_runs_as_if_alone_whatever_it_inherits(tuned: Tuned) -> None:
    """A variable is used as it is meant or replaced, and it is said; never a silent hang."""
    notes = (next(tuned.run.glob("logs/*/environment.log"))).read_text()
    for name in ("RANK=3", "WORLD_SIZE=8", "MASTER_ADDR=10.9.8.7", "PET_NNODES=2", "RAY_ADDRESS=",
                 "CUDA_VISIBLE_DEVICES=5", "TMPDIR=", "a proxy"):  # fmt: skip
        assert notes.count(f"note: {name}") == 1, name
        assert name in tuned.stderr


def test_adapters_are_merged_into_a_whole_model(tuned: Tuned) -> None:
    train = tuned.run / "train"
    assert (train / "adapter_model.safetensors").is_file()
    merged = train / "merged"
    shipped = REPO / "recipes" / "mini" / "model"
    assert json.loads((merged / "config.json").read_text())["hidden_size"] == 128
    assert (merged / "model.safetensors").is_file()
    assert (merged / "model.safetensors").read_bytes() != (shipped / "model.safetensors").read_bytes()


def test_a_finished_run_is_left_alone(tuned: Tuned) -> None:
    again = tuned.repo.launch(*tuned.words)
    assert "already finished" in again.stderr
    told = json.loads(again.stdout)
    assert (told["run"], told["status"]) == (str(tuned.run), "done")


def test_locks_name_what_a_run_used(repo: Repo) -> None:
    run = Path(repo.launch("render", "min_o1/sft_short").stdout.strip())
    locks = json.loads((run / "run.json").read_text())["locks"]
    assert set(locks) == {"core.txt", "llamafactory-cuda.txt", "vllm-cuda.txt"}
    assert envs.lock_file("llamafactory", "cuda").name in locks
    assert rundir.status(run) == "new"
