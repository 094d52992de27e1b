"""Waits until all nodes have joined a Ray cluster; runs in the environment with the cluster's version of Ray.

<python> -m launchers.run.ray_ready ADDRESS NODES SECONDS
"""

import sys
import time
from collections.abc import Sequence

from launchers.run.node import wait_for


def main(argv: Sequence[str]) -> int:
    """Exit status 1, after printing what is missing, on timeout."""
    address, expected, end = argv[0], int(argv[1]), time.monotonic() + float(argv[2])
    try:
        wait_for(address, float(argv[2]))
    except OSError as problem:
        print(f"error: Ray's head: {problem}", flush=True)
        return 1
    import ray

    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    while len(nodes := [node for node in ray.nodes() if node["Alive"]]) < expected:
        if time.monotonic() > end:
            seen = ", ".join(node["NodeManagerHostname"] for node in nodes)
            print(f"error: {len(nodes)} of {expected} nodes have joined the Ray cluster ({seen})", flush=True)
            return 1
        time.sleep(0.5)
    for node in nodes:
        has = {name: node["Resources"].get(name, 0) for name in ("CPU", "GPU")}
        print(f"Ray node {node['NodeManagerHostname']} {node['NodeManagerAddress']}: {has}", flush=True)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
