"""Model servers on a Ray cluster: each is an actor that runs `vllm serve` on a node with enough free GPUs.

    <ray's python> -m data_prep.inference.vllm.on_ray MODEL --python VLLM_PYTHON [--servers 4] [--gpus 2]

prints the address of each, for a step's `base_url`, and serves until Ctrl-C or until a server dies.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pydantic import Field

from data_prep.core.commands import POSITIONAL, Options, run
from data_prep.core.executors.ray import connect
from data_prep.core.progress import Progress
from data_prep.errors import DataError
from data_prep.inference.vllm.server import serve
from data_prep.inference.vllm.settings import EngineOptions

CHECK_EVERY_S = 5.0


class ModelServer:
    """A server on the actor's node; it ends with the actor."""

    def __init__(self, model: str, revision: str | None, python: Path, options: EngineOptions) -> None:
        import ray

        self._stack = ExitStack()
        host, log = ray.util.get_node_ip_address(), Path(mkdtemp(prefix="vllm-"), "log")
        self._endpoint = self._stack.enter_context(
            serve(model, revision=revision, python=python, host=host, options=options, log=log)
        )

    def url(self) -> str:
        """The address, ending in /v1. Raises DataError if the server has died."""
        self._endpoint.check()
        return self._endpoint.base_url

    def stop(self) -> None:
        """Stop the server."""
        self._stack.close()


@contextmanager
def served(
    model: str, python: Path, servers: int = 1, gpus: int = 0, revision: str | None = None
) -> Iterator[Sequence[Any]]:
    """Actors that serve `model` with the vLLM of `python`, each on `gpus` GPUs, while the block runs.

    Raises DataError.
    """
    connect()
    import ray
    from ray.exceptions import RayError

    needed, present = servers * gpus, ray.cluster_resources().get("GPU", 0)
    if needed > present:
        raise DataError(f"{servers} servers with {gpus} GPUs each need {needed}, but the Ray cluster has {present:g}")
    options = EngineOptions(tensor_parallel=max(1, gpus), replicas=1)
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(ModelServer)
    actors = [actor.remote(model, revision, python, options) for _ in range(servers)]
    try:
        yield actors
    except RayError as error:
        raise DataError(f"{model}: a server on Ray: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.wait([each.stop.remote() for each in actors], num_returns=servers, timeout=30)
        for each in actors:
            ray.kill(each)


def urls(actors: Sequence[Any]) -> list[str]:
    """The servers' addresses, once all are up."""
    import ray

    return [str(url) for url in ray.get([each.url.remote() for each in actors])]


class Request(Options):
    """Serve a model on a Ray cluster."""

    model: str = Field(json_schema_extra=POSITIONAL, description="Hub id or folder")
    revision: str | None = None
    python: Path = Field(description="interpreter of the vLLM environment (on all nodes)")
    servers: int = 1
    gpus: int = Field(0, description="GPUs per server")


def serve_until_stopped(args: Request, progress: Progress) -> str:
    """Print the addresses and serve until Ctrl-C. Raises DataError if a server dies."""
    with served(args.model, args.python, args.servers, args.gpus, args.revision) as actors:
        print("\n".join(urls(actors)), flush=True)
        with suppress(KeyboardInterrupt):
            while urls(actors):
                time.sleep(CHECK_EVERY_S)
    return ""


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", {"": (Request, serve_until_stopped)}))
