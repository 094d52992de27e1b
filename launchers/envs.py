"""Python environments, one per backend, built from a lock file and reused until the lock changes.

    python3 -m launchers.envs core            # builds it if missing, prints its interpreter
    python3 -m launchers.envs vllm --device cpu

Standard library only: this module builds the environment that everything else runs in.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
LOCKS = REPO / "configs" / "envs"
TRACKERS = LOCKS / "trackers"  # packages to add for a recipe that logs to a tracker which is not in the lock
PYTHON = "3.11"  # the version that the locks are resolved for
UV = "uv==0.13.8"


class EnvError(Exception):
    """An environment could not be built; the message is one line."""


def cache_dir() -> Path:
    """The folder of environments, downloads and step results: POSTTRAIN_CACHE, or `.cache` in the repository."""
    return Path(os.environ.get("POSTTRAIN_CACHE") or REPO / ".cache").absolute()


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU (a driver device node)."""
    return Path("/dev/nvidiactl").exists()


def names() -> list[str]:
    """All environments that have a lock."""
    return sorted({re.sub(r"-(cpu|cuda)$", "", lock.stem) for lock in LOCKS.glob("*.txt")})


def lock_file(name: str, device: str | None = None) -> Path:
    """The lock file of environment `name` for "cpu" or "cuda" (None: this machine's device)."""
    device = device or ("cuda" if has_gpu() else "cpu")
    for candidate in (LOCKS / f"{name}.txt", LOCKS / f"{name}-{device}.txt"):
        if candidate.exists():
            return candidate
    raise EnvError(f"no environment {name!r} for {device} (known: {', '.join(names())})")


def trackers(name: str, device: str | None = None) -> tuple[set[str], set[str]]:
    """The experiment trackers in an environment's lock, and those that can be added to it."""
    known = {"mlflow": "mlflow-skinny", "tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}
    layer = TRACKERS / f"{name}.txt"
    held, added = (
        {tracker for tracker, package in known.items() if f"\n{package}==" in f"\n{text}"}
        for text in (lock_file(name, device).read_text(), layer.read_text() if layer.exists() else "")
    )
    return held, added - held


def overlay(lock: Path) -> Path:
    """The folder of files that are copied into the environment after its packages (may not exist)."""
    return LOCKS / "overlays" / lock.stem


def env_dir(name: str, device: str | None = None) -> Path:
    """The environment's folder, named after the hash of everything that determines its contents."""
    lock = lock_file(name, device)
    digest = hashlib.sha256(PYTHON.encode())
    extra = overlay(lock)
    for path in (lock, *(sorted(p for p in extra.rglob("*") if p.is_file() and p.suffix != ".pyc"))):
        digest.update(path.name.encode() + path.read_bytes())
    return cache_dir() / "envs" / f"{lock.stem}-{digest.hexdigest()[:12]}"


def interpreter(name: str, device: str | None = None) -> Path:
    """Path of the environment's Python; the environment need not be built."""
    return env_dir(name, device) / "bin" / "python"


def is_built(name: str, device: str | None = None) -> bool:
    """Whether the environment is completely built."""
    return (env_dir(name, device) / ".complete").exists()


def _find_links(environ: Mapping[str, str]) -> str:
    """Find-links for uv: its own setting, else pip's, which uv does not read."""
    if links := environ.get("UV_FIND_LINKS") or environ.get("PIP_FIND_LINKS"):
        return ",".join(links.replace(",", " ").split())
    pip = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    return ",".join(done.stdout.split()) if done.returncode == 0 else ""


def _run(argv: list[str], environ: Mapping[str, str], doing: str) -> None:
    done = subprocess.run(argv, env=dict(environ), stdout=sys.stderr, check=False)
    if done.returncode:
        raise EnvError(f"{doing} failed (exit {done.returncode}); see the lines above")


def _uv(environ: Mapping[str, str]) -> str:
    """The pinned uv, installed into the cache on first use."""
    home = cache_dir() / "envs" / UV.replace("==", "-")
    tool = home / "bin" / "uv"
    if not tool.exists():
        shutil.rmtree(home, ignore_errors=True)
        print(f"installing {UV}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(home)], environ, "python3 -m venv")
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, UV], environ, f"pip install {UV}")
    return str(tool)


@contextmanager
def _locked(name: str, folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _environ(lock: Path, target: Path) -> tuple[dict[str, str], list[str]]:
    """Environment variables and options of uv for package sources and output."""
    environ = {**os.environ, "VIRTUAL_ENV": str(target)}
    links = _find_links(environ)
    if links:
        environ["UV_FIND_LINKS"] = links
    if "PIP_INDEX_URL" in environ:
        environ.setdefault("UV_DEFAULT_INDEX", environ["PIP_INDEX_URL"])
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # on a terminal uv shows its own progress
    folders = [Path(link.removeprefix("file://")) for link in links.split(",") if link]
    has_torch = any(list(folder.glob("torch-*+cpu*.whl")) for folder in folders if folder.is_dir())
    cpu_index = ["--torch-backend", "cpu"] if lock.stem.endswith("-cpu") and not has_torch else []
    return environ, [*quiet, *cpu_index]


def add_trackers(name: str, device: str | None = None) -> None:
    """Add the trackers that are not in its lock to a built environment, unless they are installed."""
    lock, layer, target = lock_file(name, device), TRACKERS / f"{name}.txt", env_dir(name, device)
    done = target / f".trackers-{hashlib.sha256(layer.read_bytes()).hexdigest()[:12]}"
    with _locked(lock.stem, target.parent):
        if not done.exists():
            environ, options = _environ(lock, target)
            print(f"adding {layer.relative_to(REPO)} to environment {lock.stem}", file=sys.stderr)
            command = [_uv(environ), "pip", "install", "--no-deps", "--requirements", str(layer), *options]
            _run(command, environ, f"uv pip install {layer.name}")
            done.touch()


def ensure(name: str, device: str | None = None) -> Path:
    """The environment's interpreter; builds the environment if it is missing or its lock has changed.

    For core, also builds `sandbox`, the environment of the programs that rewards run.
    """
    if name == "core":
        ensure("sandbox")
    lock, target = lock_file(name, device), env_dir(name, device)
    _once(target, lock.stem, lambda: _build(name, lock, target))
    return target / "bin" / "python"


def _build(name: str, lock: Path, target: Path) -> None:
    environ, options = _environ(lock, target)
    uv = _uv(environ)
    print(f"building environment {lock.stem} from {lock.relative_to(REPO)}", file=sys.stderr)
    _run([uv, "venv", "--quiet", "--python", PYTHON, str(target)], environ, "uv venv")
    sync = [uv, "pip", "sync", str(lock), *options]
    if name in ("sandbox", "ray"):  # sandboxed programs cannot write bytecode; Ray's agents must start within 15 s
        sync.append("--compile-bytecode")
    _run(sync, environ, f"uv pip sync {lock.name}")
    if (files := overlay(lock)).is_dir():
        packages = next((target / "lib").glob("python*/site-packages"))
        shutil.copytree(files, packages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    if name == "core":
        _write_bytecode(target / "bin" / "python", environ)


def _once(target: Path, lock: str, build: Callable[[], object]) -> None:
    """Build a folder unless it is complete, under a lock; an incomplete one is removed first."""
    done = target / ".complete"
    if not done.exists():
        with _locked(lock, target.parent):
            if not done.exists():
                shutil.rmtree(target, ignore_errors=True)
                build()
                done.touch()


def local_copy(python: Path) -> Path:
    """The interpreter of the environment's copy on this node's local disk (POSTTRAIN_SCRATCH), made if missing.

    Imports by thousands of processes are slow on a shared file system.
    """
    scratch = os.environ.get("POSTTRAIN_SCRATCH")
    source = cache_dir() / "envs" / python.parent.parent.name
    if not scratch or not (source / ".complete").exists():
        return python
    target = Path(scratch) / "envs" / source.name
    marker = shutil.ignore_patterns(".complete")
    _once(target, source.name, lambda: shutil.copytree(source, target, symlinks=True, ignore=marker))
    return target / "bin" / "python"


def _write_bytecode(python: Path, environ: Mapping[str, str]) -> None:
    """Compile the launcher's imports, also for users who disable bytecode: this halves start-up time."""
    writing = {**environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(REPO)}
    verbs = (
        "import launchers.cli, launchers.run.summary, launchers.recipe.catalogue, "
        "launchers.run.execute, launchers.run.supervise, jinja2"
    )
    _run([str(python), "-c", verbs], writing, "importing the launcher")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python3 -m launchers.envs`."""
    parser = argparse.ArgumentParser(prog="launchers.envs", description=str(__doc__).splitlines()[0])
    parser.add_argument("name", help="environment: " + ", ".join(names()))
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: this machine's device")
    parser.add_argument("--trackers", action="store_true", help="also install experiment trackers not in its lock")
    given = parser.parse_args(argv)
    try:
        python = ensure(given.name, given.device)
        if given.trackers:
            add_trackers(given.name, given.device)
        print(local_copy(python))
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
