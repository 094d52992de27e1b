"""The managed server, partly with real vLLM on CPU: start, monitoring, clean shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import making
import pytest

from data_prep.core import pipeline
from data_prep.core.guard import descendants
from data_prep.core.manifest import read_manifest, read_rows
from data_prep.core.step import Drop, Row
from data_prep.errors import DataError
from data_prep.inference.api.client import ChatClient
from data_prep.inference.api.providers import find_form
from data_prep.inference.sampling import Sampling
from data_prep.inference.vllm.server import last_line, serve
from data_prep.inference.vllm.settings import EngineOptions, locked_version
from rewards.thinking import thinking

REPO = Path(__file__).resolve().parents[2]
GUARD = REPO / "data_prep" / "core" / "guard.py"

# A family like vLLM's: a first process that leaves a child in a session of its own, which ignores SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start_guarded(seconds: float) -> tuple[subprocess.Popen[str], list[int]]:
    command = [sys.executable, str(GUARD), "0.3", sys.executable, "-c", FAMILY, str(seconds)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert guard.stdout is not None
    lines = {guard.stdout.readline().strip(), guard.stdout.readline().strip()}
    pids = [int(word) for line in lines - {"up"} for word in line.split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    return guard, pids


def test_guard_ends_all_processes_on_request() -> None:
    guard, pids = start_guarded(600)
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait(10)
    assert not any(map(alive, pids))


def test_guard_ends_all_processes_when_the_first_dies() -> None:
    guard, pids = start_guarded(600)
    os.kill(pids[0], signal.SIGKILL)
    assert guard.wait(10) == 128 + signal.SIGKILL
    assert not any(map(alive, pids))


def test_guard_survives_sigterm_and_ends_all_processes_when_its_caller_is_killed() -> None:
    caller = f"""
import subprocess, sys, time
guard = subprocess.Popen([sys.executable, {str(GUARD)!r}, "0.3", sys.executable, "-c", {FAMILY!r}, "600"],
                         stdin=subprocess.PIPE, start_new_session=True)
print("guard", guard.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", caller], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        words = " ".join(process.stdout.readline() for _ in range(3)).replace("up", "").replace("guard", "")
        pids = [int(word) for word in words.split()]
        assert len(pids) == 3
        os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: not any(map(alive, pids)), 10)


def test_a_missing_model_is_a_one_line_error_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="neither a local folder nor a Hub id") as caught,
        serve("./no/such/model", base=tmp_path, log=tmp_path / "log"),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_an_environment_without_vllm_says_how_to_get_one(tmp_path: Path, mini_model: Path) -> None:
    with (
        pytest.raises(DataError, match="make env/vllm"),
        serve(str(mini_model), python=tmp_path / "bin/python", log=tmp_path / "log"),
    ):
        pass


def test_the_informative_line_of_a_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "INFO loading\n(EngineCore pid=1) ValueError: head size 16 is not supported\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\nINFO bye\n"
    )
    assert last_line(log) == "ValueError: head size 16 is not supported"
    log.write_text("starting\n\n")
    assert last_line(log) == "starting"


def questions(count: int) -> list[Row]:
    return [{"id": f"q{i}", "prompt": [{"role": "user", "content": f"{i}+{i}=?"}]} for i in range(count)]


def test_real_server_answers_alike_for_a_seed_and_its_death_is_noticed(
    mini_model: Path, vllm_python: Path, tmp_path: Path
) -> None:
    """A base model with a chat template of one's own."""
    model = str(making.base_model(mini_model, tmp_path))
    sampling = Sampling(n=2, temperature=1.0, max_tokens=40, seed=5)
    options = EngineOptions(chat_template="template.jinja")
    with serve(model, base=tmp_path, python=vllm_python, options=options, log=tmp_path / "log") as endpoint:
        form = find_form("vllm", "", model)
        client = ChatClient(endpoint.base_urls, model, concurrency=16, form=form, watch=endpoint.watch)
        first = client.run(questions(16), sampling)
        again = client.run(questions(16)[::-1], sampling)
        assert first == again[::-1]
        for samples in first:
            assert not isinstance(samples, Drop)
            assert len(samples) == 2
            assert all(0 < (one.tokens or 0) <= 40 for one in samples)
        engines = [
            pid
            for pid in descendants(endpoint.servers[0].process.pid)
            if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        shared = shared_memory(descendants(endpoint.servers[0].process.pid))
        assert shared
        os.kill(engines[0], signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(DataError, match="died") as caught:
            client.run(questions(2000), sampling)
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 15
    assert not [path for path in shared if path.exists()]


def shared_memory(pids: list[int]) -> set[Path]:
    """Shared-memory files that processes have open."""
    lines = [line for pid in pids if alive(pid) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return {Path(line.split()[-1]) for line in lines if "/dev/shm/psm_" in line}


@pytest.mark.full
def test_steps_start_their_own_server(vllm_python: Path, tmp_path: Path) -> None:
    """generate, label and rewrite each start a server, use it and stop it."""
    model = str(REPO / "recipes" / "mini" / "reasoner")
    steps = [
        {"name": "curriculum", "kind": "curriculum", "params": {"levels": {"2": 12}, "split": "train", "seed": 1}},
        {"name": "label", "kind": "label", "params": {"model": model, "max_tokens": 8}, "inputs": ["curriculum"]},
        {"name": "generate", "kind": "generate", "inputs": ["label"],
         "params": {"model": model, "n": 2, "max_tokens": 80, "seed": 1}},
        {"name": "rewrite", "kind": "rewrite", "params": {"format": "sky_t1"}, "inputs": ["generate"]},
    ]  # fmt: skip
    given = {"name": "x", "base": str(tmp_path), "cache": str(tmp_path / "cache"), "steps": steps}
    spec = pipeline.Spec.model_validate({**given, "max_drop_share": 1})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    assert [pipeline_step.env for pipeline_step in pipeline.plan(spec)] == ["core", "vllm", "vllm", "core"]
    command = [str(vllm_python), "-m", "data_prep", "run", str(tmp_path / "spec.json"), "--steps"]
    done = subprocess.run(
        [*command, "curriculum,label,generate"], cwd=REPO, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    labelled, sampled, rewritten = (
        read_manifest(pipeline.find(spec, name)) for name in ("label", "generate", "rewrite")
    )
    assert labelled is not None
    assert labelled.counts == {"unlabelled": 12}, "so small a model writes no JSON"
    assert labelled.cost["answers"] == 24, "each was asked twice"
    assert sampled is not None
    assert sampled.rows_out == 24
    assert sampled.fingerprint["vllm"] == locked_version()
    assert rewritten is None
    pipeline.run(spec, ["rewrite"])
    rows = list(read_rows(pipeline.find(spec)))
    assert len(rows) >= 16, "nearly all samples end in a line with a box"
    assert all(thinking("sky_t1").parse(row["completion"]).problems == () for row in rows)
    assert all(row["meta"]["tokens"] > 0 for row in read_rows(pipeline.find(spec, "generate")))
