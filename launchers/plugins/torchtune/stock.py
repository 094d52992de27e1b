"""Subclasses of torchtune's stock recipes. The training loops are unchanged; these parts are adapted:

- every row is trained on, in an order determined by the seed, for any number of steps (batches.py);
- torchtune's "epoch" is a segment of train.save_every steps, so that it saves and resumes at steps; a segment ends
  early, with a checkpoint, when the job is about to end (launchers/plugins/stop_asked.py);
- the two LoRA DPO recipes clip gradients, and log metrics of the whole step instead of its last micro batch or the sum
  over ranks.
"""

import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import torchtune
from launchers.plugins.stop_asked import stop_asked
from launchers.plugins.torchtune import batches
from launchers.plugins.torchtune.batches import Plan
from torchtune import config, data

CLASSES = {
    "full_finetune_single_device": "FullFinetuneRecipeSingleDevice",
    "full_finetune_distributed": "FullFinetuneRecipeDistributed",
    "lora_finetune_single_device": "LoRAFinetuneRecipeSingleDevice",
    "lora_finetune_distributed": "LoRAFinetuneRecipeDistributed",
    "lora_dpo_single_device": "LoRADPORecipeSingleDevice",
    "lora_dpo_distributed": "LoRADPORecipeDistributed",
    "full_dpo_distributed": "FullDPORecipeDistributed",
}
CLIPS_ITSELF = frozenset(CLASSES) - {"lora_dpo_single_device", "lora_dpo_distributed"}


class Stopped(Exception):
    """The training was stopped early on request, with a checkpoint."""


class BadRows(Exception):
    """Rows without trainable tokens; the message is one line for the user."""


def recipe_file(name: str) -> Path:
    """The path of the recipe in torchtune's wheel."""
    return Path(torchtune.__file__).parent.parent / "recipes" / f"{name}.py"


def adapted(name: str) -> type[Any]:
    """A subclass of the stock recipe's class with our adaptations."""
    spec = importlib.util.spec_from_file_location(f"torchtune_recipe_{name}", recipe_file(name))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    stock = getattr(module, CLASSES[name])
    mixin = LoraAdaptations if name.startswith("lora_") else Adaptations
    return type(f"Ours{stock.__name__}", (mixin, stock), {"recipe": name})


class Loader:
    """The dataloader and sampler of a stock loop: yields the micro batches of a segment for one rank.

    step: finished steps. stop: called after each step; True ends the segment there.
    """

    def __init__(
        self, dataset: Any, collate: Callable[[list[Any]], Any], plan: Plan, rank: int, step: int,
        stop: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.dataset, self.plan, self.sampler, self.step, self.stopped = dataset, plan, self, step, False
        self._collate, self._rank, self._stop, self._end = collate, rank, stop, 0

    def set_epoch(self, segment: int) -> None:
        """Start a segment. Raises Stopped if the previous one ended early."""
        if self.stopped:
            raise Stopped
        self._end = min((segment + 1) * self.plan.every, self.plan.steps)

    def __len__(self) -> int:
        return self.plan.every * self.plan.accumulation

    def __iter__(self) -> Iterator[Any]:
        while self.step < self._end and not self.stopped:
            # Seed per step, so that dropout is reproducible after resuming.
            torch.manual_seed((self.plan.seed * 1_000_003 + self.step * 1009 + self._rank) % 2**63)
            for rows in self.plan.micro_batches(self.step, self._rank):
                yield self._collate([self.dataset[row] for row in rows])
            self.step += 1
            self.stopped = self.step < self.plan.steps and self._stop()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the step is sufficient."""
        return {}


class Adaptations:
    """Mixin over a stock recipe."""

    recipe: str

    def __init__(self, cfg: DictConfig) -> None:
        self._ours = cfg.posttrain
        super().__init__(cfg=cfg)

    def _setup_data(self, cfg_dataset: Any, shuffle: bool, batch_size: int, **_: Any) -> Any:
        """Our loader instead of the stock one; as a pair (sampler, loader) for DPO recipes."""
        dataset = config.instantiate(cfg_dataset, self._tokenizer)
        packed, preference = cfg_dataset.get("packed", False), "_dpo_" in self.recipe
        if not packed:
            check_rows(dataset, preference, self._tokenizer.max_seq_len)
        world = getattr(self, "dp_size", getattr(self, "world_size", 1))
        rank = getattr(self, "dp_rank", getattr(self, "rank", 0))
        accumulation = self._gradient_accumulation_steps
        steps = batches.planned(len(dataset), batch_size * accumulation * world, self._ours.epochs, self._ours.steps)
        self._plan = Plan(
            len(dataset), batch_size, accumulation, world, steps, min(self._ours.save_every or steps, steps),
            self._ours.seed, shuffle,
        )  # fmt: skip
        self.total_epochs = self._plan.segments
        if rank == 0:
            path = Path(self._output_dir) / "planned.json"
            path.write_text(json.dumps({"steps": steps, "steps_per_pass": self._plan.per_pass}))
        if getattr(self, "_metric_logger", None) is not None:
            self._metric_logger.plan = self._plan
            self._metric_logger.corrections = self._corrections
        collate = data.padded_collate_packed
        if not packed:
            padded = data.padded_collate_dpo if preference else data.padded_collate_sft
            ignored = data.CROSS_ENTROPY_IGNORE_IDX
            collate = functools.partial(padded, padding_idx=self._tokenizer.pad_id, ignore_idx=ignored)
        loader = self.loader = Loader(dataset, collate, self._plan, rank, self._ours.step, self._stop_asked)
        client = getattr(self, "_checkpoint_client", None)
        (client._get_checkpointer() if client else self._checkpointer).loader = loader
        return (loader, loader) if preference else loader

    def _stop_asked(self) -> bool:
        stop = stop_asked(self._device)
        self.total_epochs += stop  # so that torchtune also saves a checkpoint in the last segment
        return stop

    def train(self) -> None:
        """Train to the end, or until the loader has `stopped`."""
        with suppress(Stopped):
            super().train()

    def _setup_optimizer(self, cfg_optimizer: Any, **given: Any) -> Any:
        """The optimizer, with settings restored that a config or checkpoint loses."""
        optimizer = super()._setup_optimizer(cfg_optimizer=cfg_optimizer, **given)
        wrapped = getattr(self, "_optim_ckpt_wrapper", None)
        for each in [optimizer] if optimizer is not None else wrapped.optim_map.values() if wrapped else []:
            for group in each.param_groups:
                group["initial_lr"] = cfg_optimizer.lr  # a resuming scheduler needs it
                if "betas" in group:
                    group["betas"] = tuple(group["betas"])  # OmegaConf's lists cannot be loaded again
        if self.recipe not in CLIPS_ITSELF:
            self._install_clipping(optimizer)
        return optimizer

    def _install_clipping(self, optimizer: Any) -> None:
        self._rewards: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._step_rewards: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._grad_norm: Any = None

        def clip(*_: Any) -> None:
            if self._ours.max_grad_norm:
                parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
                norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm=float(self._ours.max_grad_norm))
                self._grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            self._step_rewards, self._rewards = self._rewards, []

        optimizer.register_step_pre_hook(clip)

    def _setup_lr_scheduler(self, cfg_lr_scheduler: Any, num_training_steps: int, last_epoch: int) -> Any:
        """The scheduler for our number of steps, starting at the step that training resumes from."""
        self.global_step, self.epochs_run = self._ours.step, self._ours.step // self._plan.every
        if self.recipe not in CLIPS_ITSELF:
            self._loss_fn.register_forward_hook(lambda _, __, made: self._rewards.append((made[1], made[2])))
        return super()._setup_lr_scheduler(
            cfg_lr_scheduler=cfg_lr_scheduler, num_training_steps=self._plan.steps, last_epoch=self.global_step - 1
        )

    def _corrections(self, payload: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Correct values of metrics that the stock recipe logs wrongly, such as the next step's learning rate."""
        (rate,) = self._lr_scheduler.lr_lambdas
        measures: dict[str, Any] = {"lr": self._lr_scheduler.base_lrs[0] * rate(step - 1)}
        if self.recipe in CLIPS_ITSELF:
            return measures
        if self._grad_norm is not None:
            measures["grad_norm"] = self._grad_norm
        if self.recipe == "lora_dpo_distributed":  # it logs the sum over ranks
            measures["loss"] = payload["loss"] / self._plan.world
        else:  # it logs only the last micro batch
            chosen, rejected = (torch.stack([pair[at].mean() for pair in self._step_rewards]).mean() for at in (0, 1))
            right = torch.stack([(pair[0] > pair[1]).float().mean() for pair in self._step_rewards]).mean()
            measures |= {
                "rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected,
                "rewards/accuracies": right,
            }  # fmt: skip
        return measures


class LoraAdaptations(Adaptations):
    """Merges adapters into the weights only at the end."""

    def save_checkpoint(self, epoch: int) -> None:
        """Save; `epoch` counts segments."""
        self._save_adapter_weights_only = epoch + 1 < self.total_epochs
        super().save_checkpoint(epoch)


def check_rows(dataset: Any, preference: bool, max_length: int | None) -> None:
    """Raises BadRows if truncation at max_length removes a completion entirely."""
    names = ("chosen_labels", "rejected_labels") if preference else ("labels",)
    ignored = data.CROSS_ENTROPY_IGNORE_IDX
    empty = []
    for row in range(len(dataset)):
        sample = dataset[row]
        if not all(any(label != ignored for label in sample[name]) for name in names):
            empty.append(row)
    if empty:
        raise BadRows(
            f"{len(empty)} of {len(dataset)} rows have no completion within train.max_length {max_length} (the first "
            f"is line {empty[0] + 1} of the training file): raise it, or drop their long prompts in the pipeline"
        )
