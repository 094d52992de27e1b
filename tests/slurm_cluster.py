"""A real Slurm of two nodes with eight fake GPUs each, on loopback: Debian's slurm-wlm and munge, as root.

Processes are started here and stopped here; nothing of the machine's own configuration is read or written.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from data_prep.core import guard

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctl}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdLogFile={dir}/slurmd-%n.log
SlurmctldLogFile={dir}/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1
SlurmdTimeout=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={n0} CPUs=96 RealMemory=1100000 Gres=gpu:h800:8
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=96 RealMemory=1100000 Gres=gpu:h800:8
PartitionName=gpu Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=n0,n1 MaxTime=INFINITE State=UP PriorityTier=2
"""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start_munge(folder: Path) -> subprocess.Popen[bytes]:
    home = folder / "munge"
    home.mkdir()
    (home / "key").write_bytes(os.urandom(128))
    (home / "key").chmod(0o600)
    argv = [
        "munged", "--foreground", "--force", f"--key-file={home}/key", f"--socket={folder}/munge.socket",
        f"--pid-file={home}/pid", f"--log-file={home}/log", f"--seed-file={home}/seed",
    ]  # fmt: skip
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    _wait(lambda: (folder / "munge.socket").exists(), "munged", home / "log")
    return process


def _wait(ready: object, what: str, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        if time.monotonic() > end:
            said = log.read_text() if log.exists() else "no log"
            raise AssertionError(f"{what} did not come up:\n{said[-2000:]}")
        time.sleep(0.2)


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the cluster below `folder`; yields the environment in which sbatch and its kin find it."""
    for tool in ("munged", "slurmctld", "slurmd", "sbatch"):
        assert shutil.which(tool), f"{tool} is missing: apt-get install slurm-wlm munge"
    host, (ctl, n0, n1) = socket.gethostname(), _free_ports(3)
    for name in ("state", "spool-n0", "spool-n1"):
        (folder / name).mkdir(parents=True)
    devices = folder / "gpus"
    devices.mkdir()
    for number in range(8):
        (devices / str(number)).touch()
    conf = _CONF.format(host=host, ctl=ctl, n0=n0, n1=n1, dir=folder, cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(f"NodeName=n[0-1] Name=gpu Type=h800 File={devices}/[0-7]\n")
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    running = [_start_munge(folder)]
    try:
        running.append(subprocess.Popen(["slurmctld", "-D", "-c"], env=environ, stderr=subprocess.DEVNULL))
        for node in ("n0", "n1"):
            start_node(node, environ)
        idle = ["sinfo", "--noheader", "--partition=gpu", "--Node", "--format=%T"]
        _wait(
            lambda: subprocess.run(idle, env=environ, capture_output=True, text=True).stdout.split() == ["idle"] * 2,
            "slurm", folder / "slurmctld.log",
        )  # fmt: skip
        yield environ
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=environ, capture_output=True)
        for file in folder.glob("slurmd-*.pid"):
            kill([int(file.read_text())], signal.SIGTERM)
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def start_node(node: str, environ: dict[str, str]) -> None:
    """Start a node's slurmd, also after `lose_node`."""
    subprocess.run(["slurmd", "-N", node], env=environ, check=True, stderr=subprocess.DEVNULL)


def processes(environ: dict[str, str], node: str | None = None) -> dict[int, str]:
    """What runs for the cluster's jobs, or those of a node: pid to command line."""
    mark = f"SLURMD_NODENAME={node}" if node else "SLURMD_NODENAME="
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            given = (folder / "environ").read_text(errors="replace")
            if f"SLURM_CONF={environ['SLURM_CONF']}" in given and mark in given:
                found |= {int(folder.name), *guard.descendants(int(folder.name))}
    return {pid: words for pid in found if (words := _proc(pid, "cmdline"))}


def lose_node(node: str, environ: dict[str, str]) -> None:
    """Kill a node's slurmd and all that runs for jobs there, as when the machine loses power."""
    tasks = processes(environ, node)
    steps = {int(stat.rpartition(")")[2].split()[1]) for pid in tasks if (stat := _proc(pid, "stat"))} - {1, *tasks}
    daemon = int((Path(environ["SLURM_CONF"]).parent / f"slurmd-{node}.pid").read_text())
    kill([daemon, *steps, *tasks])


def _proc(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Signal processes, of which some may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def state(job: str, environ: dict[str, str]) -> str:
    """The state of a job, by Slurm."""
    shown = subprocess.run(["scontrol", "show", "job", job], env=environ, capture_output=True, text=True).stdout
    return shown.split("JobState=")[1].split()[0]


def start_again(job: str, environ: dict[str, str], seconds: float = 120) -> None:
    """Wait until a job is requeued, and let it start at once, not after the two minutes that Slurm waits by itself."""
    end = time.monotonic() + seconds
    while (now := state(job, environ)) != "PENDING":
        assert time.monotonic() < end, now
        time.sleep(0.2)
    time.sleep(2)  # slurmd refuses a credential issued within the second in which the job's earlier one was revoked
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=environ, check=True)


def finish(job: str, environ: dict[str, str], seconds: float) -> str:
    """The state in which a job ends."""
    end = time.monotonic() + seconds
    while (now := state(job, environ)) in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED"):
        assert time.monotonic() < end, now
        time.sleep(0.5)
    return now
