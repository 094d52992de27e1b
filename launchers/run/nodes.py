"""Starts a command on all nodes of a Slurm allocation, from the first of them.

    python -m launchers.run.nodes torchrun NODES GPUS -- PYTHON -m torch.distributed.run …
    python -m launchers.run.nodes ray NODES GPUS [SETTINGS VLLM_PYTHON PHASE] -- PYTHON -m …

torchrun: one task per node runs the command, with rank, address and port of the first node in PET_… variables, which
torchrun reads. ray: one task per node starts a node of a Ray cluster private to this job; the command then runs on the
first node with RAY_ADDRESS set. With SETTINGS each node also runs a reward model server. The cluster stops with the
command, and a lost node or head stops the command. Exit status: the command's, or 75 if a node or the head was lost.
Without Slurm, torchrun's rank and address come from NODE_RANK, MASTER_ADDR and MASTER_PORT.
"""

import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.inference.vllm.server import START_TIMEOUT_S
from launchers.envs import interpreter
from launchers.run.node import STOPPED, free_ports, own_address, service_port, wait_for
from rewards.model.http import URL_VARIABLE

LOST = 75  # exit status (EX_TEMPFAIL of sysexits.h) if a node or the Ray head is lost: job.sbatch then requeues its job
ANSWER_S = 60.0  # timeout for every node to start a task
END_S = 30.0  # grace period for a command or a cluster to stop
READY_S = 300.0  # timeout for tasks to start, and for Ray nodes to join
LOOK_EVERY_S, GONE_S = 0.5, 3.0
FIRST_PORT, JOBS, BLOCK = 20_000, 600, 20  # below the kernel's ephemeral ports (from 32,768), one block per job
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
LOOPBACK = "127."
TAIL = 40  # lines of another node's log shown when it fails


def main(argv: Sequence[str]) -> int:
    """Exit status of the command, or 1 if it could not be started on all nodes."""
    split = argv.index("--")
    kind, nodes, gpus, server, command = argv[0], int(argv[1]), argv[2], argv[3:split], list(argv[split + 1 :])
    if "SLURM_JOB_ID" not in os.environ:
        return _by_hand(kind, nodes, command)
    hosts = _output("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]).split()
    if len(hosts) < nodes:
        return _error(f"the allocation has {len(hosts)} nodes, but {nodes} are needed")
    other = _node_address(hosts[1])
    address = own_address(other)
    if address.startswith(LOOPBACK) and not other.startswith(LOOPBACK):  # Slurm on a single host gives 127.… itself
        reason = "Correct /etc/hosts, or set network_interface in the site profile"
        return _error(f"{other} resolves to the loopback address {address}, which other nodes cannot reach. {reason}")
    first = FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % JOBS * BLOCK
    (port,) = free_ports(1, first, BLOCK)
    base = Path(os.environ.get("POSTTRAIN_LOG") or "nodes.log")
    if kind == "ray":  # keep other users off the cluster: its tasks run arbitrary code as this user
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    logs = [base.with_suffix(f".node{rank}.log") for rank in range(nodes)]
    core = str(interpreter("core"))  # not this node's local copy, which other nodes may lack
    task = [core, "-m", "launchers.run.node", kind, f"{address}:{port}", gpus, str(base), *server, "--", *command]
    srun = [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--wait=0",
        f"--immediate={READY_S:.0f}",
        f"--cpus-per-task={os.environ.get('SLURM_CPUS_PER_TASK', '1')}", "--export=ALL", "--mem=0", "--unbuffered",
        *shlex.split(os.environ.get("POSTTRAIN_SRUN", "")), *shlex.split(os.environ.get("POSTTRAIN_INSIDE", "")), *task,
    ]  # fmt: skip
    if kind == "ray":
        status = _on_ray(srun, command, f"{address}:{port}", nodes, bool(server))
    else:
        status = subprocess.run(srun, check=False).returncode
    if status:
        _show(logs[1 if kind == "torchrun" else 0 :])
    if status == LOST or (status and not _all_answer(nodes)):
        return _error("a node or Ray's head is lost", LOST)
    return status


def _all_answer(nodes: int) -> bool:
    """Whether all nodes can start a task: Slurm marks a lost node as down only minutes later."""
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--mem=0", "true"]
    try:
        return subprocess.run(command, check=False, timeout=ANSWER_S, stderr=subprocess.DEVNULL).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _on_ray(srun: Sequence[str], command: Sequence[str], address: str, nodes: int, service: bool) -> int:
    host, _, port = address.partition(":")
    environ = {**os.environ, "RAY_ADDRESS": address, "VLLM_HOST_IP": host}
    if service:
        environ[URL_VARIABLE] = f"http://127.0.0.1:{service_port(int(port), 0)}"
    cluster = subprocess.Popen(srun)
    try:
        limit = str(READY_S + START_TIMEOUT_S * service)
        ready = [command[0], "-m", "launchers.run.ray_ready", address, str(nodes), limit]
        return _run_on_cluster(cluster, ready, environ, 1) or _run_on_cluster(cluster, command, environ, LOST)
    finally:
        _end(cluster)


def _run_on_cluster(
    cluster: subprocess.Popen[bytes], argv: Sequence[str], environ: Mapping[str, str], lost: int
) -> int:
    """Run a command on the cluster; returns its exit status, or `lost` if the cluster ends first."""
    process = subprocess.Popen(argv, env=environ)
    while (status := process.poll()) is None:
        if cluster.poll() is not None:
            _end(process)  # it may be waiting for a lost head
            return _error(f"the Ray cluster ended (exit {cluster.returncode})", lost)
        time.sleep(LOOK_EVERY_S)
    if status and _gone(cluster, environ["RAY_ADDRESS"]):
        return lost
    return status if status >= 0 else 128 - status


def _gone(cluster: subprocess.Popen[bytes], head: str) -> bool:
    """Whether the cluster is stopping (the command may fail before the cluster's process ends)."""
    end = time.monotonic() + GONE_S
    while time.monotonic() < end and cluster.poll() is None:
        try:
            wait_for(head, 0)
        except OSError:
            return True
        time.sleep(LOOK_EVERY_S)
    return cluster.poll() is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _by_hand(kind: str, nodes: int, command: Sequence[str]) -> int:
    given = {f"PET_{name}": os.environ[name] for name in BY_HAND if name in os.environ}
    if kind != "torchrun" or len(given) < len(BY_HAND):
        by_hand = f", or start it on each with {', '.join(BY_HAND)} set" if kind == "torchrun" else ""
        return _error(f"needs {nodes} nodes: submit it (make sbatch/…){by_hand}")
    return subprocess.run(command, env={**os.environ, **given}, check=False).returncode


def _node_address(host: str) -> str:
    """A node's address in Slurm (its host name may resolve to the loopback interface)."""
    address = re.search(r"\bNodeAddr=(\S+)", _output("scontrol", "show", "node", host))
    return address[1] if address else host


def _output(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


def _show(logs: Sequence[Path]) -> None:
    """Print the last lines of the logs of nodes that failed on their own, so that this log shows the cause."""
    for log in logs:
        if log.is_file() and not (text := log.read_bytes()).endswith(STOPPED):
            print(f"--- {log}")
            print("\n".join(text.decode(errors="replace").splitlines()[-TAIL:]), flush=True)


def _error(text: str, status: int = 1) -> int:
    print(f"error: {text}", flush=True)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, subprocess.CalledProcessError, socket.gaierror) as problem:
        sys.exit(_error(str(problem)))
