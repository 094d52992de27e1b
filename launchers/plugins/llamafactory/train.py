"""Runs a LlamaFactory training: inspects the rows, then trains as `python -m llamafactory.launcher` does.

    <llamafactory python> -m launchers.plugins.llamafactory.train FOLDER        (under torchrun on several GPUs)

FOLDER contains llamafactory.yaml. Rank 0 inspects in a separate process, so that the state of LlamaFactory's parser
for a CPU does not affect the training; it is forked after the imports, which are slow.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Exit status 2 if the rows must not be trained on, with one line per fault."""
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
    # On resume, CPU ranks load the optimiser state to device "cpu:0", a location that torch.load does not know.
    serialization.register_package(100, lambda _: None, lambda storage, place: storage if place[:4] == "cpu:" else None)
    sys.argv[1:] = [str(folder / "llamafactory.yaml")]
    run_exp(callbacks=[stop_when_asked.StopWhenAsked()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
