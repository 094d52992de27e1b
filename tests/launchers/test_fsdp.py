"""FSDP and FSDP2 of SFT and DPO: what is rendered for H100 and H800, and that what is trained is saved whole."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.render import write
from tests.launchers.test_llamafactory import ONE_PROCESS, QUIET

RECIPES = {"sft": "min_o1/sft_short", "dpo": "sky_t1/flash"}
VERSIONS = {"full_shard_fsdp1": 1, "full_shard": 2}
# Global batch as micro × accumulation × GPUs, and precision.
PINNED = {("sft", "h100x8"): (256, 4, 8, 8), ("sft", "h800x8"): (256, 4, 8, 8), ("dpo", "h100x8"): (96, 1, 12, 8),
          ("dpo", "h800x8"): (96, 1, 12, 8)}  # fmt: skip
# accelerate's own plugin, as the Trainer makes it, and the condition under which Trainer.save_model writes.
PLUGIN = """
import json, os, sys
from omegaconf import OmegaConf
from accelerate.utils import FullyShardedDataParallelPlugin
from llamafactory.hparams import get_train_args
for path in sys.argv[1:]:
    given = OmegaConf.to_container(OmegaConf.load(path))
    _, _, training, _, _ = get_train_args({**given, "use_cpu": True, "enable_liger_kernel": False})
    said = training.fsdp_plugin_args
    no_gpu = {"sync_module_states": False, "cpu_ram_efficient_loading": False}  # both ask for a GPU's name
    plugin = FullyShardedDataParallelPlugin(**{**said, **no_gpu})
    print(json.dumps([path, plugin.fsdp_version, str(plugin.state_dict_type), str(plugin.sharding_strategy),
        bool(said["cpu_ram_efficient_loading"]), training.bf16]))
"""


def _rendered(tmp_path: Path, method: str, config: str, hardware: str) -> tuple[Path, dict[str, str]]:
    said = [f"hardware={hardware}", "native.deepspeed=null", f"native.fsdp_config={config}"]
    resolved, faults = preflight.check(
        compose.resolve(RECIPES[method], Overrides(None, tuple(compose.parse_settings(said))))
    )
    assert faults == []
    made = plan.build(resolved, tmp_path / f"{method}-{config}-{hardware}")
    batch = made.main.batch
    assert (batch.global_batch, batch.micro, batch.accumulation, batch.world) == PINNED[method, hardware]
    for file, text in made.backend.render(made.main, made.run).items():
        (made.run / file).parent.mkdir(parents=True, exist_ok=True)
        (made.run / file).write_text(text)
    (training, *_) = made.backend.commands(made.main)
    assert training.argv[1:8] == (
        "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "8", "--standalone",
    )  # fmt: skip
    return made.run / made.main.output / "llamafactory.yaml", dict(training.environ)


def test_what_is_trained_is_saved_whole(tmp_path: Path, llamafactory_python: Path) -> None:
    cells = [(method, config, machine) for method in RECIPES for config in VERSIONS for machine in ("h100x8", "h800x8")]
    made = [_rendered(tmp_path, *cell) for cell in cells]
    environ = made[0][1]
    assert environ["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert all(one == environ for _, one in made)
    done = subprocess.run(
        [str(llamafactory_python), "-c", PLUGIN, *(str(path) for path, _ in made)],
        env={**os.environ, **QUIET, **ONE_PROCESS, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["/')]
    assert [one[0] for one in found] == [str(path) for path, _ in made]
    for (_, config, _), (_, version, state, strategy, loading, bf16) in zip(cells, found, strict=True):
        assert version == VERSIONS[config]
        assert "FULL_STATE_DICT" in state  # Trainer.save_model writes nothing otherwise
        assert "FULL_SHARD" in strategy or version == 2
        assert loading
        assert bf16


@pytest.mark.parametrize("config", VERSIONS)
def test_the_config_names_its_file(tmp_path: Path, config: str) -> None:
    path, _ = _rendered(tmp_path, "sft", config, "h100x8")
    said = yaml.safe_load(path.read_text())
    assert said["fsdp"] == "full_shard auto_wrap"
    assert Path(said["fsdp_config"]) == path.parent / f"{config}.json"
    assert json.loads(Path(said["fsdp_config"]).read_text())["fsdp_version"] == VERSIONS[config]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_processes_save_every_weight_whole(tmp_path: Path, llamafactory_python: Path, mini_model: Path) -> None:
    """FSDP2 for real, on a CPU. The first version's full state dict crashes in PyTorch there; its plugin is above."""
    from safetensors.numpy import load_file

    said = [
        "native.fsdp_config=full_shard",
        "controls=null",
        "train.steps=3",
        "train.epochs=null",
        "train.save_every=2",
    ]
    settings = tuple(compose.parse_settings(said))
    resolved, faults = preflight.check(compose.resolve("min_o1/sft_short", Overrides("mini", settings)))
    assert faults == []
    made = plan.build(resolved, tmp_path)
    for file, text in made.backend.render(made.main, made.run).items():
        write(made.run / file, text)
    config = tmp_path / "train/llamafactory.yaml"
    given = yaml.safe_load(config.read_text())
    sharding = Path(given["fsdp_config"])
    no_gpu = {"sync_module_states": False, "cpu_ram_efficient_loading": False}  # both ask for a GPU's name
    sharding.write_text(json.dumps(json.loads(sharding.read_text()) | no_gpu))
    data = tmp_path / "data"
    write(config, yaml.safe_dump({**given, "dataset_dir": str(data)}))
    sums = [(a, b) for a in range(8) for b in range(8)]
    chats = [[{"role": "user", "content": f"{a}+{b}=?"}, {"role": "assistant", "content": str(a + b)}] for a, b in sums]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    write(data / "rows.json", json.dumps([{"messages": chat} for chat in chats]))
    write(data / "dataset_info.json", json.dumps({given["dataset"]: columns}))
    environ = {**os.environ, **QUIET, "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [str(llamafactory_python), *torchrun, str(Path(__file__).with_name("fsdp_on_cpu.py")), str(config)],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    before = load_file(mini_model / "model.safetensors")
    for folder in (tmp_path / "train", tmp_path / "train/checkpoint-2"):
        after = load_file(folder / "model.safetensors")
        assert (after.pop("lm_head.weight") == after["model.embed_tokens.weight"]).all()  # tied, and gathered twice
        assert {name: weight.shape for name, weight in after.items()} == {n: w.shape for n, w in before.items()}
        assert all((after[name] != before[name]).any() for name in before)
