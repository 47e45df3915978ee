"""A Ray cluster of two nodes on this machine, until the input ends: python -m tests.faults.cluster

In a process of its own, since Ray reads once how it is to be asked for a token. Says where it is, and the pid of the
second node's raylet.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        said = {"address": cluster.address, "raylet": node.all_processes["raylet"][0].process.pid}
        print(json.dumps(said), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
