"""A real Slurm of two nodes with eight fake GPUs each, on loopback: Debian's slurm-wlm and munge, as root.

Processes are started here and stopped here; nothing of the machine's own configuration is read or written.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={n0} CPUs=96 RealMemory=1100000 Gres=gpu:h800:8
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=96 RealMemory=1100000 Gres=gpu:h800:8
PartitionName=gpu Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP
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
            running.append(subprocess.Popen(["slurmd", "-D", "-N", node], env=environ, stderr=subprocess.DEVNULL))
        idle = ["sinfo", "--noheader", "--Node", "--format=%T"]
        _wait(
            lambda: subprocess.run(idle, env=environ, capture_output=True, text=True).stdout.split() == ["idle"] * 2,
            "slurm", folder / "slurmctld.log",
        )  # fmt: skip
        yield environ
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=environ, capture_output=True)
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def state(job: str, environ: dict[str, str]) -> str:
    """The state of a job, by Slurm."""
    shown = subprocess.run(["scontrol", "show", "job", job], env=environ, capture_output=True, text=True).stdout
    return shown.split("JobState=")[1].split()[0]


def finish(job: str, environ: dict[str, str], seconds: float) -> str:
    """The state in which a job ends."""
    end = time.monotonic() + seconds
    while (now := state(job, environ)) in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED"):
        assert time.monotonic() < end, now
        time.sleep(0.5)
    return now
