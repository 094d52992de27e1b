"""LlamaFactory's training in two processes under FSDP, on a CPU, which accelerate shards on GPUs only.

    torchrun --nproc-per-node 2 tests/launchers/fsdp_on_cpu.py llamafactory.yaml

accelerate decides by the kind of device whether its FSDP plugin counts; here it is made to count on a CPU, too.
Everything else, the plugin, wrapping, training and saving, is accelerate's, transformers' and LlamaFactory's own.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from accelerate import state
from accelerate.utils import DistributedType
from llamafactory.train.tuner import run_exp

_init = state.AcceleratorState.__init__


def _with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        self.device = torch.device("cpu")  # not cpu:0: FSDP's first version compares the names
        state.PartialState._shared_state |= {"distributed_type": self.distributed_type, "device": self.device}


if __name__ == "__main__":
    state.AcceleratorState.__init__ = _with_fsdp
    run_exp()
    print("trained", sys.argv[1])
