"""A Ray cluster of two nodes with two CPUs each on this machine, whose address is the first line of output.

Lines of input: `kill` kills the second node; `version 1.0` makes it a cluster of another version of Ray. Its end ends
the cluster. Run by the interpreter of the environment `ray`.
"""

import json
import sys

from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

MEMORY = 100_000_000  # of the object store of a node, bytes


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": MEMORY})
    second = cluster.add_node(num_cpus=2, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "kill":
            cluster.remove_node(second, allow_graceful=False)
        else:
            client = GcsClient(address=cluster.address)
            metadata = json.loads(client.internal_kv_get(b"CLUSTER_METADATA", b"cluster"))
            metadata["ray_version"] = words[0]
            client.internal_kv_put(b"CLUSTER_METADATA", json.dumps(metadata).encode(), True, b"cluster")
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
