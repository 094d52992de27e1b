"""Runs a command together with a reward model server; each stops when the other ends.

    python -m launchers.run.service RUN/reward_model.json VLLM_PYTHON PHASE -- command…    (or RUN/second_judge.json)

The server is vLLM, on a free port and the node's last GPUs, or an endpoint that is already running. The command reads
its address from POSTTRAIN_REWARD_MODEL_URL. Before scoring data and before training, eight conversations are scored by
the server and with transformers; different scores are an error (data_prep/inference/vllm/reward_check.py). With a
colocated reward model, this server only runs for that check and stops before training, in which the trainer serves it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.errors import DataError
from data_prep.inference.vllm import reward_check
from data_prep.inference.vllm.server import Endpoint, serve
from data_prep.inference.vllm.settings import EngineOptions
from launchers.run import events
from launchers.run.judge import JUDGED
from rewards.model.http import URL_VARIABLE

LOOK_EVERY_S = 0.5


def main(argv: Sequence[str]) -> int:
    """Exit status of the command, or 1 if the server is unusable or died."""
    file, python, phase, command = Path(argv[0]), Path(argv[1]), argv[2], list(argv[4:])
    if _done_already(command):
        return subprocess.run(command, check=False).returncode
    given, run, began = json.loads(file.read_text()), file.parent, time.monotonic()
    node = os.environ.get("SLURM_NODEID", "0")  # each node has its own server
    name = f"{file.stem}-{phase}{f'.node{node}' if node != '0' else ''}.log"
    log = run / "logs" / os.environ.get("ATTEMPT", "manual") / name
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = dict(os.environ)
    rest = _take_gpus(given["gpus"])
    try:
        with _server(given, python, log) as (url, endpoint):
            seconds = round(time.monotonic() - began, 1)
            events.append(run, "service_start", service=file.stem, phase=phase, url=url, seconds=seconds)
            if phase in ("data", "train", "judge"):
                named = {key: given[key] for key in ("revision", "template") if given[key]}
                reward_check.verify(python, given["model"], url, bool(given["url"]), **named)
            if not (given["colocated"] and phase == "train"):
                return _run_with_server(command, {**os.environ, **rest, URL_VARIABLE: url}, endpoint)
        return subprocess.run(command, env=inherited, check=False).returncode
    except DataError as error:
        print(f"error: reward model: {error}", flush=True)
        return 1
    finally:
        seconds = round(time.monotonic() - began, 1)
        events.append(run, "service_end", service=file.stem, phase=phase, seconds=seconds)


def _done_already(command: Sequence[str]) -> bool:
    """Whether the command's output exists already, so that no server is needed."""
    if list(command[1:3]) == ["-m", "launchers.run.judge"]:
        return (Path(command[3]) / JUDGED).exists()
    if list(command[1:4]) != ["-m", "data_prep", "run"]:
        return False
    names = command[command.index("--steps") + 1].split(",")
    try:
        steps = pipeline.plan(pipeline.Spec.read(Path(command[4])))
    except DataError:
        return False  # the command itself reports the error
    return all(step.state == "done" for step in steps if step.name in names)


def _take_gpus(count: int) -> dict[str, str]:
    """Restrict this process and the server to the last `count` GPUs; returns the command's CUDA_VISIBLE_DEVICES."""
    if not count:
        return {}
    present = map(str, range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))
    gpus = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(present)).split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[-count:])
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[:-count])}


@contextmanager
def _server(given: Mapping[str, Any], python: Path, log: Path) -> Iterator[tuple[str, Endpoint | None]]:
    """(url, the started server or None for an endpoint). Raises DataError."""
    if given["url"]:
        yield given["url"], None
        return
    gpus, port = max(1, given["gpus"]), int(os.environ.get("POSTTRAIN_SERVICE_PORT") or 0)
    options = EngineOptions(dtype=given["dtype"], tensor_parallel=gpus, chat_template=given["template"])
    with serve(
        given["model"], revision=given["revision"], python=python, options=options, log=log, port=port
    ) as endpoint:
        yield endpoint.base_url.removesuffix("/v1"), endpoint


def _run_with_server(command: Sequence[str], environ: Mapping[str, str], endpoint: Endpoint | None) -> int:
    """Run the command; returns its exit status. Raises DataError if the server dies first."""
    with subprocess.Popen(command, env=environ) as process:
        while True:
            try:
                return process.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                try:
                    if endpoint is not None:
                        endpoint.check()
                except DataError:
                    process.terminate()
                    raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
