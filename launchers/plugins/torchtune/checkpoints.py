"""A torchtune checkpointer component with atomic checkpoints and a complete folder of the trained model.

torchtune's own checkpointer saves weights and optimiser state separately, so an interruption between the two leaves
weights newer than the state, and it does not save the state of the last epoch. Here a checkpoint is one folder that is
renamed to its final name once complete.

checkpoints/step_<n>/state.pt    weights (with LoRA only the adapters), optimizer
merged/                          Hugging Face folder: weights (LoRA merged), tokenizer, config; done.json
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from torchtune import training
from torchtune.training import FullModelHFCheckpointer

PARTIAL = ".partial"
KEPT_SUFFIXES = (".json", ".jinja", ".txt", ".model")
DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}


class Checkpointer(FullModelHFCheckpointer):
    """FullModelHFCheckpointer with our folder layout. `loader` must be set; it counts steps."""

    loader: Any

    def __init__(
        self,
        checkpoint_dir: str,
        output_dir: str,
        model_type: str,
        dtype: str,
        keep: int,
        should_load_recipe_state: bool = False,
    ) -> None:
        super().__init__(checkpoint_dir, weight_files(Path(checkpoint_dir)), model_type, output_dir)
        self._config.setdefault("tie_word_embeddings", False)
        self._resuming, self._keep, self._dtype = should_load_recipe_state, keep, dtype

    def load_checkpoint(self) -> dict[str, Any]:
        """The model's weights; when resuming, weights and state of the last complete checkpoint."""
        newest = last(self._output_dir) if self._resuming else None
        if newest is None:
            return self._tied(super().load_checkpoint())
        state = torch.load(newest / "state.pt", map_location="cpu", weights_only=True, mmap=True)
        state[training.TOTAL_EPOCHS_KEY] = None  # use the config's: segments are derived from the rows
        if training.MODEL_KEY not in state:
            state = {**super().load_checkpoint(), **state}
        else:
            self._weight_map = {key: f"{at + 1:04}" for at, key in _keys(self._checkpoint_paths)}
        return self._tied(state)

    def _tied(self, loaded: dict[str, Any]) -> dict[str, Any]:
        if self._config["tie_word_embeddings"]:
            self._weight_map.pop("lm_head.weight", None)  # tied: not saved separately
        return loaded

    def save_checkpoint(
        self, state_dict: dict[str, Any], epoch: int, intermediate_checkpoint: bool = False, adapter_only: bool = False
    ) -> None:
        """Save a checkpoint, or at the end the trained model."""
        if not intermediate_checkpoint:
            self._finish(state_dict)
            return
        step = self.loader.step
        state = {key: value for key, value in state_dict.items() if key != training.ADAPTER_CONFIG}
        folder = self._output_dir / "checkpoints" / f"step_{step}{PARTIAL}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        torch.save(state, folder / "state.pt")
        _sync(folder / "state.pt", folder)
        folder.rename(folder.with_suffix(""))
        _sync(folder.parent)
        for old in sorted(steps(self._output_dir))[: -self._keep]:
            shutil.rmtree(self._output_dir / "checkpoints" / f"step_{old}")
        print(f"checkpoint at step {step}", flush=True)

    def _finish(self, state_dict: dict[str, Any]) -> None:
        merged, partial = self._output_dir / "merged", self._output_dir / f"merged{PARTIAL}"
        for old in (merged, partial):
            shutil.rmtree(old, ignore_errors=True)
        output = self._output_dir
        self._output_dir = partial
        try:  # without adapters, which loaders would apply to the merged weights again
            super().save_checkpoint({training.MODEL_KEY: state_dict[training.MODEL_KEY]}, epoch=0)
        finally:
            self._output_dir = output
        for path in (partial / "epoch_0").iterdir():
            if path.name.endswith((".safetensors", ".safetensors.index.json")):
                path.rename(partial / path.name)
        shutil.rmtree(partial / "epoch_0")
        for path in self._checkpoint_dir.iterdir():
            if path.suffix in KEPT_SUFFIXES and path.is_file() and not path.name.endswith(".index.json"):
                shutil.copy(path, partial / path.name)
        config = json.loads((partial / "config.json").read_text())
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = DTYPES[self._dtype]
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        _sync(*partial.iterdir(), partial)
        partial.rename(merged)
        _sync(self._output_dir)


def weight_files(folder: Path) -> list[str]:
    """The safetensors files of a model, in order."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    names = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if not names:
        raise ValueError(f"{folder} has no *.safetensors files")
    return names


def steps(output: Path) -> list[int]:
    """Steps of the complete checkpoints."""
    numbers = (path.name.removeprefix("step_") for path in (output / "checkpoints").glob("step_*"))
    return [int(name) for name in numbers if name.isdigit()]


def last(output: Path) -> Path | None:
    """The last complete checkpoint."""
    saved = steps(output)
    return output / "checkpoints" / f"step_{max(saved)}" if saved else None


def _keys(paths: Iterable[Path]) -> Iterable[tuple[int, str]]:
    for at, path in enumerate(paths):
        with safe_open(path, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118  # safe_open is not a dict
                yield at, key


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
