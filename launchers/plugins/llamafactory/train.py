"""One LlamaFactory training: inspect the rows, then train as `python -m llamafactory.launcher` does.

    <llamafactory python> -m launchers.plugins.llamafactory.train FOLDER        (under torchrun on several GPUs)

FOLDER holds llamafactory.yaml. Rank 0 inspects in a process of its own, forked once the imports are paid for: what
LlamaFactory's parser sets up for a CPU must not stay behind for the training.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Exit status 2 for rows that must not be trained on, with a line for each fault."""
    from llamafactory.train.tuner import run_exp
    from torch import serialization

    from launchers.plugins import trackers
    from launchers.plugins.llamafactory import stop_when_asked, tokens

    folder = Path(argv[0])
    if os.environ.get("RANK", "0") == "0":
        context = multiprocessing.get_context("fork")
        inspecting = context.Process(target=lambda: sys.exit(tokens.main([str(folder)])))
        inspecting.start()
        inspecting.join()
        if inspecting.exitcode:
            return inspecting.exitcode if inspecting.exitcode > 0 else 1
    trackers.prepare(folder)
    # To resume, ranks on CPUs load the optimiser to their device "cpu:0", a place that torch.load does not know.
    serialization.register_package(100, lambda _: None, lambda storage, place: storage if place[:4] == "cpu:" else None)
    sys.argv[1:] = [str(folder / "llamafactory.yaml")]
    run_exp(callbacks=[stop_when_asked.StopWhenAsked()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
