"""Runs one node's part of a multi-node command: a task of the srun in nodes.py.

    python -m launchers.run.node torchrun|ray ADDRESS:PORT GPUS LOG [SETTINGS VLLM_PYTHON PHASE] -- command…

The first node's output is the command's output; that of the other nodes, and of Ray, goes to LOG.node<rank>.log.
"""

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
STARTS, STARTED = 3, b"Ray runtime started"  # Ray's limit of 30 s per start can be too short on a busy machine
stopped: list[int] = []
STOPPED = b"stopped: this node was not the first to fail\n"
SHORT = 20  # characters
MOST_OBJECTS, LEAST_OBJECTS = 20 * 10**9, 10**8  # bytes of Ray's object store


def own_address(other: str) -> str:
    """This node's address on the network to another node, or that of the site's interface. Raises OSError.

    It is read from the routing table: a host's own name often resolves to the loopback interface.
    """
    if name := os.environ.get("POSTTRAIN_INTERFACE"):
        return _address_of(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))  # nothing is sent
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The interface with this address."""
    for _, name in socket.if_nameindex():
        with suppress(OSError):  # it has no address
            if _address_of(name) == address:
                return name
    return None


def _address_of(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", name.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24])


def free_ports(count: int, first: int, block: int) -> list[int]:
    """`count` consecutive free ports, starting at `first` or a multiple of `block` above it. Raises OSError."""
    for start in range(first, 32_000, block):
        with ExitStack() as stack, suppress(OSError):
            for port in range(start, start + count):
                stack.enter_context(socket.socket()).bind(("", port))
            return list(range(start, start + count))
    raise OSError(f"no {count} consecutive free ports at or above {first}")


def wait_for(address: str, seconds: float = 300.0) -> None:
    """Return once host:port accepts connections. Raises OSError after a timeout."""
    host, _, port = address.partition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as problem:
            if time.monotonic() > end:
                raise OSError(f"no connection to {address} after {seconds:.0f} s: {problem}") from problem
            time.sleep(0.5)


def main(argv: Sequence[str]) -> int:
    """Exit status of the command or of the Ray node."""
    # Slurm signals every process of the task; this one only records the signal and waits for the others.
    signal.signal(signal.SIGTERM, lambda signum, _: stopped.append(signum))
    split = argv.index("--")
    kind, head, gpus, base, server = argv[0], argv[1], argv[2], Path(argv[3]), argv[4:split]
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
        if server:
            environ["POSTTRAIN_SERVICE_PORT"] = str(service_port(int(port), rank))
            words = [sys.executable, "-m", "launchers.run.service", *server, "--", *words]
        return _ray_node(words, head if rank else None, environ, log)
    environ |= {"PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": host, "PET_MASTER_PORT": port}
    with log.open("ab") as others:
        output = None if rank == 0 else others
        status = subprocess.run(command, env=environ, stdout=output, stderr=output, check=False).returncode
        if stopped:
            others.write(STOPPED)
    return 0 if stopped else status  # srun returns the highest status, which is that of the task that failed first


def service_port(port: int, rank: int) -> int:
    """Port of the reward model's server on a node, derived from the Ray head's port, which the command knows."""
    return port + 2 * len(RAY_PORTS) + 1 + rank % 2


def _ray_words(python: str, head: str, rank: int, address: str, gpus: str) -> list[str]:
    """The command that starts a Ray node, with explicit ports, CPUs, GPUs and memory."""
    port = int(head.partition(":")[2])
    ports = free_ports(len(RAY_PORTS), port + 1 + len(RAY_PORTS) * (rank % 2), 4 * len(RAY_PORTS))
    # Ray's client server needs grpc: with it, Ray listens at 10001 by default; without it, the option is an error.
    client = rank == 0 and any(Path(python).parents[1].glob("lib/*/site-packages/grpc"))
    role = ["--head", f"--port={port}", "--include-dashboard=false"] if rank == 0 else [f"--address={head}"]
    return [
        python, "-m", "ray.scripts.scripts", "start", *role, "--block", "--disable-usage-stats",
        f"--node-ip-address={address}", f"--num-cpus={_cpus()}", f"--num-gpus={gpus}",
        f"--object-store-memory={_objects()}",
        *(f"--{name}={port}" for name, port in zip(RAY_PORTS, ports, strict=True) if client or "client" not in name),
    ]  # fmt: skip


def _temporary() -> str:
    """A new folder for Ray on this node's disk, with a short path: socket paths are limited to 107 characters."""
    below = tempfile.gettempdir() if len(tempfile.gettempdir()) < SHORT else "/tmp"  # noqa: S108
    return tempfile.mkdtemp(prefix="ray-", dir=below)


def _ray_node(words: list[str], head: str | None, environ: dict[str, str], log: Path) -> int:
    """Run Ray's processes on this node until they stop or one dies; waits for `head` and retries failed starts."""
    if not environ.get("CUDA_VISIBLE_DEVICES", "0"):
        del environ["CUDA_VISIBLE_DEVICES"]  # on a CPU, an empty list contradicts --num-gpus
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
    """CPUs of this task: Slurm's number, because without CPU binding the process sees all of the node's CPUs."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))


def _objects() -> int:
    """Bytes for Ray's object store: 30 % of the job's memory, at most half of the free space in /dev/shm."""
    memory = int(os.environ.get("SLURM_MEM_PER_NODE") or 0) * 2**20 or MOST_OBJECTS
    return max(LEAST_OBJECTS, min(int(0.3 * memory), shutil.disk_usage("/dev/shm").free // 2, MOST_OBJECTS))  # noqa: S108


def _more_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < LOW_FILES:
        print(f"warning: this node allows {hard} open files per process: Ray and servers may need more", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
