"""Runs one command of a run, with its log, progress, time and peak memory, and stops all its processes at the end.

    python -m launchers.run.supervise RUN PHASE LABEL -- [KEY=VALUE…] command…

local.sh calls it for each command. Output goes to logs/<attempt>/; a failure is reported in one line with the log's
path. All processes of the command end with this one, however it ends (data_prep/core/guard.py).
"""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from data_prep.core import guard
from launchers.backends.base import Backend
from launchers.run import directory as rundir
from launchers.run import events

_PR_SET_PDEATHSIG = 1
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_GRACE_S = "5"
HEARTBEAT_S = 30.0
LINE_S = 15.0  # seconds between printed progress lines
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def die_with_parent(parent: int, signum: int = signal.SIGTERM) -> None:
    """Have the kernel send `signum` to this process when its parent process `parent` ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it had already ended
            os.kill(os.getpid(), signum)


class Guarded:
    """A command under data_prep's guard, which stops all its processes when stdin closes (or this process dies)."""

    def __init__(self, argv: Sequence[str], environ: dict[str, str]) -> None:
        self._cpu: dict[tuple[int, str], float] = {}  # by pid and start time
        command = [sys.executable, guard.__file__, _GRACE_S, *argv]
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop the command and all its processes. Called by signal handlers, so it must not take Popen's lock, which
        the interrupted wait may hold."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        with suppress(ChildProcessError):  # already reaped
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def look(self) -> float:
        """Resident memory of all its processes in MB (shared pages count once per process)."""
        page, tick, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK"), 0
        for pid in guard.descendants(self.process.pid):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
                # proc(5), after the name in parentheses: utime, stime and starttime, which identifies a reused pid
                facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            self._cpu[pid, facts[19]] = (int(facts[11]) + int(facts[12])) / tick
        return total / 1e6

    def cpu_seconds(self) -> float:
        """CPU time of all its processes: the larger of what `look` saw and the kernel's count of reaped children.

        The kernel's count lacks processes whose parent ignores SIGCHLD, as Ray's raylet does.
        """
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return max(sum(self._cpu.values()), used.ru_utime + used.ru_stime)


@dataclass(frozen=True)
class Training:
    """A training phase: backend, output folder, and expected number of steps (None if packing determines it)."""

    backend: Backend
    output: Path
    steps: int | None


def _training(run: Path, label: str) -> Training:
    plan = rundir.at(run).plan
    job = next(job for job in plan.jobs if job.label == label)
    return Training(plan.backend, run / job.output, plan.steps(job))


class Watch(threading.Thread):
    """Monitors a running command: peak memory, heartbeat, and training steps as events and printed lines."""

    def __init__(self, command: Guarded, run: Path, label: str, training: Training | None) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._command, self._run, self._label = command, run, label
        self._training = training
        self._over = threading.Event()
        self._seen = -1
        self._beat, self._beats = -HEARTBEAT_S, 0
        self._printed = 0.0

    def run(self) -> None:
        pause = 0.1  # so that short commands are sampled too
        while not self._over.wait(pause):
            self._look()
            pause = min(2 * pause, 1.0)
        self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, self._command.look())
        if time.monotonic() > self._beat + HEARTBEAT_S:
            self._beat, self._beats = time.monotonic(), self._beats + 1
            (self._run / events.HEARTBEAT).write_text(f"{self._beats} {self._label} {socket.gethostname()}\n")
        if self._training and (now := self._training.backend.progress(self._training.output)):
            if now.done != self._seen:
                self._seen = now.done
                events.append(self._run, "train_step", label=self._label, step=now.done, total=now.planned, **now.facts)
            if time.monotonic() > self._printed + LINE_S:
                self._printed = time.monotonic()
                print(f"train {self._label}: step {now.done} of {now.planned}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Sample once more, and stop."""
        self._over.set()
        self.join()


def _split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The environment with the leading KEY=VALUE words, and the command."""
    assigned = list(takewhile(_ASSIGNMENT.match, words))
    own = {key: value for key, _, value in (word.partition("=") for word in assigned)}
    return {**os.environ, **own}, list(words[len(assigned) :])


def _echo(source: IO[bytes], log: IO[bytes], show: bool) -> None:
    """Copy a command's output into the log and, with `show`, to the terminal."""
    for line in iter(source.readline, b""):
        log.write(line)
        log.flush()
        if show:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def main(argv: Sequence[str]) -> int:
    """Run one command of a run; returns its exit status."""
    run, phase, label = Path(argv[0]), argv[1], argv[2]
    environ, command = _split(argv[4:])
    die_with_parent(int(os.environ.get("SCRIPT_PID") or os.getppid()))
    log = run / "logs" / os.environ.get("ATTEMPT", "manual") / f"{phase}{'-' + label if label else ''}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environ["POSTTRAIN_LOG"] = str(log)  # other nodes write theirs next to it (nodes.py)
    training = _training(run, label) if phase == "train" else None
    if training:
        done = training.backend.progress(training.output)
        if done and done.done >= done.planned and training.backend.finished(training.output):
            print(f"train {label}: done already ({done.done} steps)", file=sys.stderr)
            return 0
        training.backend.prepare(training.output)
    return _supervise(run, phase, label, command, environ, log, training)


def _supervise(
    run: Path, phase: str, label: str, command: list[str], environ: dict[str, str], log: Path,
    training: Training | None,
) -> int:  # fmt: skip
    events.append(run, "phase_start", phase=phase, label=label, command=command)
    began = time.monotonic()
    with log.open("ab") as sink:
        offset = sink.tell()
        guarded = Guarded(command, environ)

        def ended(status: int, **more: Any) -> None:
            seconds, cpu_seconds = round(time.monotonic() - began, 2), round(guarded.cpu_seconds(), 1)
            facts = {"status": status, "seconds": seconds, "cpu_seconds": cpu_seconds, **more}
            events.append(run, "phase_end", phase=phase, label=label, **facts)

        def stop(signum: int, _frame: object) -> None:
            for number in STOPS:  # a second signal must not interrupt stopping
                signal.signal(number, signal.SIG_IGN)
            guarded.stop()
            ended(-signum)
            os._exit(128 + signum)

        for number in STOPS:
            signal.signal(number, stop)
        watch = Watch(guarded, run, label, training)
        watch.start()
        assert guarded.process.stdout is not None
        _echo(guarded.process.stdout, sink, show=phase in ("data", "eval"))
        status = guarded.process.wait()
        watch.stop()
    message = _verdict(status, training, log, offset)
    ended(status, peak_rss_mb=round(watch.peak), **({"error": message} if message else {}))
    if message:
        print(f"error: {phase}{' ' + label if label else ''}: {message}\n  log: {log}", file=sys.stderr)
    return (status or 1) if message else 0


def _verdict(status: int, training: Training | None, log: Path, offset: int) -> str | None:
    """The failure in one line; None on success."""
    if not status:
        return _shortfall(training) if training else None
    signum = -status if status < 0 else max(status - 128, 0)
    ended = f"killed by signal {signum}" if signum else f"exit {status}"
    if signum == signal.SIGKILL:  # the log cannot have the reason
        return f"{ended}, by hand or because memory ran out"
    text = log.read_bytes()[offset:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return f"{ended}, no output"
    return f"{training.backend.reason(text) if training else lines[-1]} ({ended})"


def _shortfall(training: Training) -> str | None:
    """Why a training that exited with status 0 did not do all planned steps; None if it did."""
    done = training.backend.progress(training.output)
    if done is None:
        return "the trainer exited with status 0 but recorded no steps"
    if done.done < done.planned:
        return f"stopped after {done.done} of {done.planned} steps"
    if training.steps is not None and done.planned != training.steps:
        return f"the trainer planned {done.planned} steps, the rows give {training.steps}: it has dropped rows"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
