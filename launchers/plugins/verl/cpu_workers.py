"""Ray's workers as forks of one process that has imported what all of them import: torch, transformers and the like.

A mini run has eight workers. Each would spend 4 s of CPU on the same imports, more than a whole training step takes.
So train.py, while it is still one thread and has not imported Ray, imports those modules, which it needs too, and forks
a nursery. Ray is told to start its workers by this file (its `py_executable`), which hands a worker's command line,
environment and standard streams to the nursery and is done. The nursery forks, and the fork becomes the worker. Pages
that no worker writes to exist once.

Ray and verl are left to each worker: importing Ray's C++ core reads the environment once and for all. A worker that
finds no nursery starts as Ray would have started it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import struct
import sys
import time

VARIABLE = "POSTTRAIN_NURSERY"
EXECUTABLE = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(__file__)}"  # Ray's py_executable
ENDING_S = 20.0  # after which workers that outlive Ray are killed
FIRST = 1 << 14  # bytes that travel with the standard streams
# What the workers import of other people's, and Ray nowhere below it. pyarrow's allocator has a thread, which it
# stops and starts around a fork.
MODULES = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint", "tensordict", "torchdata",
    "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "transformers.models.qwen2.modeling_qwen2",
    "peft", "accelerate", "datasets", "pandas", "pyarrow.parquet", "hydra", "omegaconf", "aiohttp", "fastapi",
    "networkx", "requests",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1


def start() -> int | None:
    """Fork the nursery; its process id, for `stop`, or None where this is no Linux. The forks leave by SystemExit.

    Without `stop` it ends with this process. Raises RuntimeError where it is too late: Ray's core cannot be shared.
    """
    if sys.platform != "linux":
        return None
    if "ray" in sys.modules:
        raise RuntimeError("the nursery must be forked before Ray is imported")
    import importlib

    for module in MODULES:
        importlib.import_module(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # an abstract name that Linux makes up
    listener.listen(64)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    nursery = os.fork()
    if not nursery:
        sys.exit(_serve(listener, parent))
    os.environ[VARIABLE] = listener.getsockname()[1:].decode()
    listener.close()
    return nursery


def stop(nursery: int | None) -> None:
    """Wait until the workers, whose Ray is gone, have ended, and the nursery with them."""
    if nursery is not None:
        os.kill(nursery, signal.SIGTERM)
        os.waitpid(nursery, 0)


def _serve(listener: socket.socket, parent: int) -> None:
    """Fork a worker for each connection. Returns in the forks only, once they have been workers."""
    import ctypes
    import gc

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    gc.freeze()  # a collection writes to all that it looks at
    workers: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda *_: _reap(workers))
    signal.signal(signal.SIGTERM, lambda *_: _end(workers))
    while True:
        with listener.accept()[0] as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", credentials)[1] != os.getuid():  # abstract names have no permissions
                continue
            text, streams, _, _ = socket.recv_fds(connection, FIRST, 3)
            while part := connection.recv(1 << 16):
                text += part
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
        worker = os.fork()
        if not worker:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            return _become(json.loads(text), streams)
        workers.add(worker)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        for stream in streams:
            os.close(stream)


def _reap(workers: set[int]) -> None:
    """Wait for those that have ended: their CPU time then counts as ours."""
    for worker in tuple(workers):
        if os.waitpid(worker, os.WNOHANG)[0]:
            workers.discard(worker)


def _end(workers: set[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    deadline = time.monotonic() + ENDING_S
    while workers:
        _reap(workers)
        if time.monotonic() > deadline:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.05)
    os._exit(0)


def _become(said: dict[str, object], streams: list[int]) -> None:
    """Go on as `python <argv>` in that environment, folder and streams."""
    import runpy

    import numpy as np

    argv, environ = said["argv"], said["environ"]
    assert isinstance(argv, list)
    assert isinstance(environ, dict)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(str(said["cwd"]))
    sys.argv[:] = argv
    sys.path[0] = os.path.dirname(argv[0])
    np.random.seed()  # the forks would draw the same numbers; `random` sees to itself
    runpy.run_path(argv[0], run_name="__main__")


def main() -> None:
    """`python cpu_workers.py <worker's script> <its arguments>`: have the nursery start it."""
    argv = sys.argv[1:]
    said = json.dumps({"argv": argv, "environ": dict(os.environ), "cwd": os.getcwd()}).encode()
    try:
        with socket.socket(socket.AF_UNIX) as nursery:
            nursery.connect("\0" + os.environ[VARIABLE])
            socket.send_fds(nursery, [said[:FIRST]], [0, 1, 2])
            nursery.sendall(said[FIRST:])
    except (KeyError, ConnectionError):
        os.execv(sys.executable, [sys.executable, *argv])  # noqa: S606  # no shell is the point


if __name__ == "__main__":
    main()
