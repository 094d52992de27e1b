"""One node's share of a command on several nodes: a task of the srun in nodes.py.

    python -m launchers.run.node torchrun|ray ADDRESS:PORT GPUS LOG -- command…

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

SIOCGIFADDR = 0x8915  # linux/sockios.h
LOW_FILES = 4096
RAY_PORTS = (
    "node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port",
)  # fmt: skip
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
    signal.signal(signal.SIGTERM, lambda *_: None)  # Slurm signals every process of the task: ours waits for the others
    kind, head, gpus, base, command = argv[0], argv[1], argv[2], Path(argv[3]), list(argv[5:])
    rank, host = int(os.environ["SLURM_NODEID"]), head.partition(":")[0]
    address = host if rank == 0 else own_address(host)
    environ = {**os.environ, "VLLM_HOST_IP": address}
    if name := interface_of(address):
        environ |= {key: os.environ.get(key, name) for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    _more_files()
    print(f"node {rank}: {socket.gethostname()} {address} ({name}), CPUs {sorted(os.sched_getaffinity(0))}", flush=True)
    with base.with_suffix(f".node{rank}.log").open("ab") as log:
        if kind == "ray":
            return _ray_node(command[0], head, rank, address, gpus, environ, log.fileno())
        port = head.partition(":")[2]
        environ |= {"PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": host, "PET_MASTER_PORT": port}
        output = None if rank == 0 else log.fileno()
        return subprocess.run(command, env=environ, stdout=output, stderr=output, check=False).returncode


def _ray_node(python: str, head: str, rank: int, address: str, gpus: str, environ: dict[str, str], log: int) -> int:
    """Ray's processes of this node until they are stopped or one dies. Ports, CPUs, GPUs and memory are all stated."""
    port = int(head.partition(":")[2])
    temporary = Path(tempfile.gettempdir()) if len(tempfile.gettempdir()) < 20 else Path("/tmp")  # noqa: S108
    if not environ.get("CUDA_VISIBLE_DEVICES", "0"):
        del environ["CUDA_VISIBLE_DEVICES"]  # an empty list contradicts the GPUs that Ray only counts on a CPU
    if rank:
        wait_for(head)
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=temporary))  # short: sockets below it have 107 characters
    ports = free_ports(len(RAY_PORTS), port + 1 + len(RAY_PORTS) * rank, len(RAY_PORTS) * 4)
    role = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    words = [
        python, "-m", "ray.scripts.scripts", "start", *(role if rank == 0 else [f"--address={head}"]), "--block",
        f"--node-ip-address={address}", f"--num-cpus={_cpus()}", f"--num-gpus={gpus}",
        f"--object-store-memory={_objects()}", "--disable-usage-stats",
        *(f"--{name}={port}" for name, port in zip(RAY_PORTS, ports, strict=True) if rank == 0 or "client" not in name),
    ]  # fmt: skip
    try:
        return subprocess.run(words, env=environ, stdout=log, stderr=log, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
