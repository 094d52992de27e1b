"""One node's share of a command on several nodes: a task of the srun in nodes.py.

    python -m launchers.run.node torchrun|ray ADDRESS:PORT GPUS LOG [SETTINGS VLLM_PYTHON PHASE] -- command…

The first node's output is the command's own; that of the others, and of Ray, goes to LOG.node<rank>.log.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from launchers.envs import local_copy

SIOCGIFADDR = 0x8915  # linux/sockios.h
LOW_FILES = 4096
RAY_PORTS = (
    "node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port",
)  # fmt: skip
STARTS, STARTED = 3, b"Ray runtime started"  # Ray gives a node 30 s to start, which a busy machine may exceed
stopped: list[int] = []
STOPPED = b"stopped: this node was not the first to fail\n"
SHORT = 20  # characters
MOST_OBJECTS, LEAST_OBJECTS = 20 * 10**9, 10**8  # bytes of Ray's object store


def own_address(other: str) -> str:
    """This node's address on the network to another node, or of the site's interface. Raises OSError.

    It is asked of the routes: what a host calls itself is often the loopback interface.
    """
    if name := os.environ.get("POSTTRAIN_INTERFACE"):
        return _address_of(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))  # nothing is sent
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The interface that has this address."""
    for _, name in socket.if_nameindex():
        with suppress(OSError):  # it has none
            if _address_of(name) == address:
                return name
    return None


def _address_of(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("256s", name.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, asked)[20:24])


def free_ports(count: int, first: int, block: int) -> list[int]:
    """Consecutive free ports from `first` on, or from as many blocks further as it takes. Raises OSError."""
    for start in range(first, 32_000, block):
        with ExitStack() as stack, suppress(OSError):
            for port in range(start, start + count):
                stack.enter_context(socket.socket()).bind(("", port))
            return list(range(start, start + count))
    raise OSError(f"no {count} free ports from {first} on")


def wait_for(address: str, seconds: float = 300.0) -> None:
    """Return once something listens at host:port. Raises OSError when the time is over."""
    host, _, port = address.partition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as problem:
            if time.monotonic() > end:
                raise OSError(f"nothing answers at {address} after {seconds:.0f} s: {problem}") from problem
            time.sleep(0.5)


def main(argv: Sequence[str]) -> int:
    """Exit status of the command or of Ray's node."""
    # Slurm signals every process of the task: ours waits for the others.
    signal.signal(signal.SIGTERM, lambda signum, _: stopped.append(signum))
    split = argv.index("--")
    kind, head, gpus, base, beside = argv[0], argv[1], argv[2], Path(argv[3]), argv[4:split]
    command = [str(local_copy(Path(argv[split + 1]))), *argv[split + 2 :]]
    rank, host = int(os.environ["SLURM_NODEID"]), head.partition(":")[0]
    address = host if rank == 0 else own_address(host)
    environ = {**os.environ, "VLLM_HOST_IP": address}
    if name := interface_of(address):
        environ |= {key: os.environ.get(key, name) for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    _more_files()
    print(f"node {rank}: {socket.gethostname()} {address} ({name}), CPUs {sorted(os.sched_getaffinity(0))}", flush=True)
    log, port = base.with_suffix(f".node{rank}.log"), head.partition(":")[2]
    if kind == "ray":
        words = [*_ray_words(command[0], head, rank, address, gpus), f"--temp-dir={_temporary()}"]
        if beside:
            environ["POSTTRAIN_SERVICE_PORT"] = str(service_port(int(port), rank))
            words = [sys.executable, "-m", "launchers.run.service", *beside, "--", *words]
        return _ray_node(words, head if rank else None, environ, log)
    environ |= {"PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": host, "PET_MASTER_PORT": port}
    with log.open("ab") as others:
        output = None if rank == 0 else others
        status = subprocess.run(command, env=environ, stdout=output, stderr=output, check=False).returncode
        if stopped:
            others.write(STOPPED)
    return 0 if stopped else status  # srun ends with the highest status: that of the task that failed first


def service_port(port: int, rank: int) -> int:
    """Of the reward model's server on a node, from that of Ray's head: known to the command, which is on the first."""
    return port + 2 * len(RAY_PORTS) + 1 + rank % 2


def _ray_words(python: str, head: str, rank: int, address: str, gpus: str) -> list[str]:
    """The command that starts a node of the cluster. Ports, CPUs, GPUs and memory are all stated."""
    port = int(head.partition(":")[2])
    ports = free_ports(len(RAY_PORTS), port + 1 + len(RAY_PORTS) * (rank % 2), 4 * len(RAY_PORTS))
    # Ray's client listens where its package is, at 10001 unless told, and is refused as an option where it is not.
    client = rank == 0 and any(Path(python).parents[1].glob("lib/*/site-packages/grpc"))
    role = ["--head", f"--port={port}", "--include-dashboard=false"] if rank == 0 else [f"--address={head}"]
    return [
        python, "-m", "ray.scripts.scripts", "start", *role, "--block", "--disable-usage-stats",
        f"--node-ip-address={address}", f"--num-cpus={_cpus()}", f"--num-gpus={gpus}",
        f"--object-store-memory={_objects()}",
        *(f"--{name}={port}" for name, port in zip(RAY_PORTS, ports, strict=True) if client or "client" not in name),
    ]  # fmt: skip


def _temporary() -> str:
    """A new folder for Ray on this node's own disk: sockets' paths below it have up to 107 characters."""
    below = tempfile.gettempdir() if len(tempfile.gettempdir()) < SHORT else "/tmp"  # noqa: S108
    return tempfile.mkdtemp(prefix="ray-", dir=below)


def _ray_node(words: list[str], head: str | None, environ: dict[str, str], log: Path) -> int:
    """Ray's processes of this node until they are stopped or one dies; `head` is waited for, starts are tried again."""
    if not environ.get("CUDA_VISIBLE_DEVICES", "0"):
        del environ["CUDA_VISIBLE_DEVICES"]  # an empty list contradicts the GPUs that Ray only counts on a CPU
    if head is not None:
        wait_for(head)
    try:
        with log.open("ab") as output:
            for _ in range(STARTS):
                before = log.stat().st_size
                status = subprocess.run(words, env=environ, stdout=output, stderr=output, check=False).returncode
                if status == 0 or stopped or STARTED in log.read_bytes()[before:]:
                    break
            if stopped:
                output.write(STOPPED)
        return status
    finally:
        shutil.rmtree(words[-1].partition("=")[2], ignore_errors=True)


def _cpus() -> int:
    """CPUs of this task: Slurm's, where it does not bind them the process sees those of the whole node."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))


def _objects() -> int:
    """Bytes for Ray's objects: three tenths of the job's memory, and half of what /dev/shm has."""
    memory = int(os.environ.get("SLURM_MEM_PER_NODE") or 0) * 2**20 or MOST_OBJECTS
    return max(LEAST_OBJECTS, min(int(0.3 * memory), shutil.disk_usage("/dev/shm").free // 2, MOST_OBJECTS))  # noqa: S108


def _more_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < LOW_FILES:
        print(f"warning: this node allows {hard} open files a process: Ray and servers may need more", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
