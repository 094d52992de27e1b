"""Stopping a run: whatever is signalled, and however often, all its processes are gone within ten seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from data_prep.core import guard
from tests.conftest import Repo

LONGEST_S = 10.0
TERM, INT = signal.SIGTERM, signal.SIGINT
# (signal, to the whole group, seconds until the next one)
PATTERNS: dict[str, list[tuple[signal.Signals, bool, float]]] = {
    "two signals": [(TERM, False, 0.3), (TERM, False, 0)],
    "Ctrl-C twice": [(INT, True, 0.03), (INT, True, 0)],
    "the whole group": [(TERM, True, 0)],
    "one, to the launcher": [(INT, False, 0)],
}
ROWS = "".join(
    f'{{"id": "{at}", "prompt": "{at}+1=?", "completion": "{at}+1:{at}>{at}", "answer": "{at}"}}\n' for at in range(64)
)
SFT = "min_o1/sft_short controls=null train.steps=4000 train.save_every=2000"
# A phase: the recipe and its settings, and the log that shows that the phase is under way with what it holds.
PHASES = {
    "data": ("min_o1/sft_short controls=null", "data.log", "generate"),
    "llamafactory": (f"{SFT} data=rows.jsonl", "train-after.log", "'loss'"),
    "torchtune": (f"{SFT} data=rows.jsonl trainer=torchtune", "train-after.log", "starting"),
    "verl": ("min_o1/grpo data=rows.jsonl validation=null stop=null eval=null", "train-after.log", "step:1 "),
}


def _alive(pids: Sequence[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


def _tried(repo: Repo, phase: str, pattern: str) -> float:
    """Start a run, wait until the phase works, signal it; seconds until nothing of it is left."""
    said, log, mark = PHASES[phase]
    recipe, *settings = said.split()
    (repo.path / "rows.jsonl").write_text(ROWS)
    words = [word for setting in settings for word in ("--set", setting)]
    out = repo.path / f"runs-{phase}-{time.monotonic_ns()}"
    launcher = subprocess.Popen(
        [str(repo.python), "-m", "launchers", "run", recipe, "--scale", "mini", "--out", str(out), *words],
        cwd=repo.path, env=repo.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    ends = time.monotonic() + 400
    while not any(mark in path.read_text(errors="replace") for path in out.glob(f"{recipe}/*/logs/*/{log}")):
        assert launcher.poll() is None, f"{phase} ended by itself"
        assert time.monotonic() < ends, f"{phase} did not start"
        time.sleep(0.1)
    family, began = [launcher.pid, *guard.descendants(launcher.pid)], time.monotonic()
    for number, group, pause in PATTERNS[pattern]:
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(launcher.pid, number)
        time.sleep(pause)
    while (left := _alive(family)) and time.monotonic() - began < 3 * LONGEST_S:
        time.sleep(0.1)
        launcher.poll()
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    launcher.wait()
    assert len(family) > 3
    return time.monotonic() - began


def test_a_stopped_training_leaves_nothing(repo: Repo) -> None:
    assert _tried(repo, "llamafactory", "two signals") < LONGEST_S


@pytest.mark.full
@pytest.mark.parametrize("phase", PHASES)
def test_a_stopped_phase_leaves_nothing_twenty_times(
    phase: str, tmp_path: Path, make_repo: Callable[[Path], Repo]
) -> None:
    repo = make_repo(tmp_path / "repo")
    taken = [(pattern, _tried(repo, phase, pattern)) for pattern in (*PATTERNS,) * 5]
    assert [one for one in taken if one[1] >= LONGEST_S] == []
