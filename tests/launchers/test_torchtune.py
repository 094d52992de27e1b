"""The torchtune backend without torchtune: which recipe, which keys, and mistakes in one line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from launchers.backends.torchtune import Torchtune, known_keys, stock_recipe
from launchers.backends.torchtune_models import Unsupported, adapters, model_of
from launchers.checks import preflight
from launchers.machines import hardware
from launchers.plan import estimate, plan
from launchers.plugins.torchtune import batches, schedule
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.recipe.schema import Lora
from launchers.run import directory as rundir
from tests.conftest import Repo
from tests.plugins.torchtune_run import render, resolved

KINDS = {
    ("sft", 1, False): "full_finetune_single_device", ("sft", 8, False): "full_finetune_distributed",
    ("sft", 1, True): "lora_finetune_single_device", ("sft", 8, True): "lora_finetune_distributed",
    ("dpo", 1, True): "lora_dpo_single_device", ("dpo", 8, True): "lora_dpo_distributed",
    ("dpo", 8, False): "full_dpo_distributed", ("dpo", 1, False): "full_dpo_distributed",
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_the_stock_recipe_follows_from_method_lora_and_devices(tmp_path: Path, case: tuple[str, int, bool]) -> None:
    method, world, lora = case
    training = render(tmp_path, method, processes=world, extra="train: {global_batch: 16, lora: {rank: 4}}" if lora
                      else "train: {global_batch: 16}")  # fmt: skip
    assert stock_recipe(training.job.resolved.recipe, world) == KINDS[case]
    said = yaml.safe_load((training.folder / "torchtune.yaml").read_text())
    assert said["posttrain"]["recipe"] == KINDS[case]
    known = set(known_keys("torchtune")["recipes"][KINDS[case]])
    assert set(said) - {"posttrain"} <= known, "no key that the recipe does not read"


SETTINGS = """
train: {global_batch: 48, micro_batch: 4, learning_rate: 3.0e-4, schedule: linear, warmup_ratio: 0.03, epochs: null,
        steps: 7, max_length: 99, weight_decay: 0.01, adam_beta2: 0.95, max_grad_norm: 0.5, precision: bf16,
        gradient_checkpointing: true, seed: 1312, save_every: 5, keep_checkpoints: 3, log_every: 2,
        lora: {rank: 16, alpha: 32, dropout: 0.05, targets: [q_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}}
preference: {beta: 0.3, label_smoothing: 0.1}
loggers: [file, tensorboard]
native: {compile: true, optimizer.eps: 1.0e-6}
"""


def test_our_vocabulary_in_torchtunes_words(tmp_path: Path) -> None:
    training = render(tmp_path, "dpo", extra=SETTINGS)
    said = yaml.safe_load((training.folder / "torchtune.yaml").read_text())
    assert (said["batch_size"], said["gradient_accumulation_steps"]) == (4, 12)
    assert said["optimizer"] == {
        "_component_": "torch.optim.AdamW", "lr": 3e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01,
        "fused": False,
    }  # fmt: skip
    assert said["lr_scheduler"]["shape"] == "linear"
    assert said["lr_scheduler"]["warmup_ratio"] == 0.03
    assert said["loss"] == {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.3, "label_smoothing": 0.1}
    assert said["dtype"] == "bf16"
    assert said["device"] == "cpu"
    assert said["enable_activation_checkpointing"] is True
    assert said["tokenizer"]["max_seq_len"] == 99
    assert said["seed"] == said["posttrain"]["seed"] == 1312
    assert said["log_every_n_steps"] == 2
    assert said["posttrain"]["save_every"] == 5
    assert said["checkpointer"]["keep"] == 3
    assert said["posttrain"]["steps"] == 7
    assert said["posttrain"]["max_grad_norm"] == 0.5
    assert "clip_grad_norm" not in said, "this recipe would ignore it"
    assert said["dataset"]["column_map"] == {"chosen": "chosen_conversations", "rejected": "rejected_conversations"}
    assert said["dataset"]["train_on_input"] is False
    assert said["metric_logger"]["loggers"] == ["tensorboard"]
    assert said["model"]["_component_"] == "torchtune.models.qwen2.lora_qwen2"
    assert said["model"]["lora_attn_modules"] == ["q_proj", "v_proj", "output_proj"]
    assert (said["model"]["apply_lora_to_mlp"], said["model"]["apply_lora_to_output"]) == (True, False)
    assert (said["model"]["lora_rank"], said["model"]["lora_alpha"], said["model"]["lora_dropout"]) == (16, 32, 0.05)
    assert said["model"]["tie_word_embeddings"] is True
    native = json.loads((training.folder / "native.json").read_text())
    assert native == {"compile": True, "optimizer.eps": 1e-6}
    known = set(known_keys("torchtune")["recipes"]["lora_dpo_single_device"])
    assert set(said) - {"posttrain"} <= known, "no key that the recipe does not read"


def test_full_dpo_names_its_reference_model_and_sft_packs(tmp_path: Path) -> None:
    said = yaml.safe_load((render(tmp_path, "dpo", processes=2).folder / "torchtune.yaml").read_text())
    assert said["ref_checkpointer"]["checkpoint_dir"] == said["checkpointer"]["checkpoint_dir"]
    assert said["clip_grad_norm"] == 1.0
    packed = render(tmp_path, "sft", extra="train: {packing: true, max_grad_norm: 0}")
    said = yaml.safe_load((packed.folder / "torchtune.yaml").read_text())
    assert said["dataset"]["packed"] is True
    assert said["clip_grad_norm"] is None


HUB = {
    "meta-llama/Llama-3.1-8B-Instruct": ("llama3_1.lora_llama3_1_8b", "LLAMA3"),
    "Qwen/Qwen2.5-14B-Instruct": ("qwen2_5.lora_qwen2_5_14b_instruct", "QWEN2"),
}


@pytest.mark.parametrize("name", HUB)
def test_models_of_the_hub_have_their_builders(name: str) -> None:
    model = model_of(name).with_lora()
    assert (model.component, model.type) == HUB[name]


def test_lora_on_all_layers_is_all_but_the_output() -> None:
    assert adapters(Lora()) == adapters(
        Lora(targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    )
    with pytest.raises(Unsupported, match="gate_proj, up_proj, down_proj or to none"):
        adapters(Lora(targets=["q_proj", "up_proj"]))


MISTAKES = {
    "batch_size": ("native: {batch_size: 2}", "native.batch_size", "set train.micro_batch instead"),
    "misspelt": ("native: {batch_sizes: 2}", "native.batch_sizes", "did you mean 'batch_size'"),
    "of LlamaFactory": ("native: {cutoff_len: 2}", "native.cutoff_len", "here it is train.max_length"),
    "of another recipe": ("native: {optimizer_in_bwd: true}\ntrain: {lora: {}}", "native.optimi", "only full_"),
    "mistyped": ("native: {compile: 3}", "native.compile", "must be bool, not 3"),
    "no truth is a number": ("native: {ac_option: true}\nhardware: h100x8", "native.ac_option", "must be int"),
    "a component's key": ("native: {model.quantise_base: true}", "native.model.quantise_base", "'quantize_base'"),
    "a nested component's key": ("native: {model: {lora_rank: 4}}", "native.model.lora_rank", "train.lora.rank"),
    "the schedule": ("native: {lr_scheduler.num_warmup_steps: 100}", "native.lr_scheduler", "train.schedule"),
    "epochs": ("native: {max_steps_per_epoch: 10}", "native.max_steps_per_epoch", "set train.steps"),
    "the checkpointer": ("native: {checkpointer.keep: 1}", "native.checkpointer.keep", "manages saving and resuming"),
    "half precision": ("train: {precision: fp16}", "train.precision", "bf16 or fp32"),
    "half an MLP": ("train: {lora: {targets: [q_proj, up_proj]}}", "train.lora.targets", "or to none of them"),
    "a tied head": ("train: {lora: {targets: [q_proj, lm_head]}}", "train.lora.targets", "tied to the embedding"),
    "an unknown model": ("model: someone/something", "model", "or add the model to configs/models.yaml"),
    "a loss": ("method: dpo\npreference: {loss: simpo}", "preference.loss", "sigmoid and hinge, not simpo"),
    "an unknown loss": ("method: dpo\npreference: {loss: sigmod}", "preference.loss", "did you mean 'sigmoid'"),
    "beta's other name": ("method: dpo\npreference: {pref_beta: 0.1}", "preference.pref_beta", "it is preference.beta"),
    "pairs without DPO": ("preference: {beta: 0.1}", "preference", "is for method dpo"),
    "packed pairs": ("method: dpo\ntrain: {packing: true}", "train.packing", "pairs cannot be packed"),
    "smoothing": ("method: dpo\npreference: {loss: hinge, label_smoothing: 0.1}", "preference.label_s", "only loss"),
    "online RL": ("method: grpo", ": method: ", "torchtune supports sft, dpo, not grpo"),
    "offloading": ("native: {enable_activation_offloading: true}", "native.enable_activation_offloading", "needs CUDA"),
    "another trainer's section": ("trainers: {llamafactry: {}}", "trainers.llamafactry", "llamafactory"),
    "a section's key": ("trainers: {llamafactory: {nativ: {}}}", "trainers.llamafactory.nativ", "native"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_place_key_and_remedy(repo: Repo, mistake: str) -> None:
    text, key, remedy = MISTAKES[mistake]
    repo.write("recipes/x/rows.jsonl", '{"prompt": "1+1?", "completion": "2", "rejected": "3"}\n')
    repo.write(
        "recipes/x/_good.yaml",
        "extends: [../_base/sft_torchtune.yaml]\nmodel: recipes/mini/model\nhardware: cpu\ndata: rows.jsonl\n"
        "train: {global_batch: 8, micro_batch: 1, learning_rate: 1e-5, epochs: 3, max_length: 64}\n",
    )
    repo.write("recipes/x/y.yaml", f"extends: [_good.yaml]\n{text}\n")
    done = repo.launch("check", "x/y")
    lines = [line for line in done.stderr.splitlines() if key in line]
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    assert "recipes/x/y.yaml:" in lines[0]
    assert remedy in lines[0]


SWITCHED = """
extends: [../_base/dpo_torchtune.yaml]
model: recipes/mini/model
hardware: cpu
data: rows.jsonl
train: {global_batch: 8, micro_batch: 1, learning_rate: 1e-5, epochs: 3, max_length: 64, lora: {rank: 4}}
native: {compile: true}
trainers:
  llamafactory: {native: {template: chatml}, train: {micro_batch: 2}}
"""


def test_another_trainer_is_one_setting(repo: Repo) -> None:
    repo.write("recipes/x/rows.jsonl", '{"prompt": "1+1?", "completion": "2", "rejected": "3"}\n')
    repo.write("recipes/x/y.yaml", SWITCHED)
    repo.write("recipes/x/theirs.yaml", "extends: [y.yaml]\ntrainer: llamafactory\n")
    ours = json.loads(repo.launch("show", "x/y", "--json").stdout)["recipe"]
    assert (ours["trainer"], ours["native"], ours["train"]["micro_batch"]) == ("torchtune", {"compile": True}, 1)
    switched = ("--set", "trainer=llamafactory", "--set", "native.flash_attn=auto")
    assert repo.launch("check", "x/y").returncode == 0
    assert repo.launch("check", "x/y", *switched).returncode == 0
    theirs = json.loads(repo.launch("show", "x/y", *switched, "--json").stdout)
    assert theirs["recipe"]["native"]["template"] == "chatml"
    assert theirs["recipe"]["native"]["flash_attn"] == "auto", "an option wins"
    assert "compile" not in theirs["recipe"]["native"]
    inherited = json.loads(repo.launch("show", "x/theirs", "--json").stdout)["recipe"]
    assert {**inherited["native"], "flash_attn": "auto"} == theirs["recipe"]["native"]
    assert theirs["recipe"]["train"]["micro_batch"] == 2
    assert theirs["where"]["native.template"] == "recipes/x/y.yaml:9"
    run = Path(repo.launch("render", "x/y", *switched).stdout.strip())
    said = yaml.safe_load((run / "train" / "llamafactory.yaml").read_text())
    assert (said["stage"], said["pref_beta"], said["pref_loss"], said["pref_ftx"]) == ("dpo", 0.1, "sigmoid", 0.0)
    again = repo.launch("render", str(run))
    assert again.returncode == 0, again.stderr
    assert yaml.safe_load((run / "train" / "llamafactory.yaml").read_text()) == said, "the run is what it was made as"


@pytest.mark.parametrize("name", compose.recipe_names())
def test_every_recipe_of_torchtune_also_passes_for_llamafactory(name: str) -> None:
    for scale in (None, *compose.scales_of(name)):
        if compose.resolve(name, Overrides(scale)).recipe.trainer == "torchtune":
            switched = Overrides(scale, (("trainer", "llamafactory", "--set trainer"),))
            _, faults = preflight.check(compose.resolve(name, switched))
            assert faults == []


@pytest.mark.parametrize("rows", [1, 3, 8, 11, 20, 64])
@pytest.mark.parametrize("world", [1, 2])
def test_every_row_is_trained_on_in_every_pass(rows: int, world: int) -> None:
    micro, accumulation = 2, 2
    steps = batches.planned(rows, micro * accumulation * world, 2, None)
    assert steps == plan.planned_steps(rows, 2, plan.Batch(micro * accumulation * world, micro, accumulation, world))
    made = batches.Plan(rows, micro, accumulation, world, steps, 3, seed=1)
    dealt: list[list[int]] = [[], []]
    for step in range(steps):
        slots = made.slots(step)
        assert len(slots) == accumulation * world
        assert all(1 <= len(slot) <= micro for slot in slots)
        by_rank = [made.micro_batches(step, rank) for rank in range(world)]
        assert [len(batch) for batch in by_rank] == [accumulation] * world
        assert sorted(slot for batch in by_rank for slot in batch) == sorted(slots)
        dealt[step // made.per_pass] += [row for slot in slots for row in slot]
    for seen in dealt:
        assert set(seen) == set(range(rows))
        assert len(seen) - rows < accumulation * world


def test_orders_differ_by_pass_and_by_seed_and_are_repeated() -> None:
    def order(seed: int, step: int) -> list[list[int]]:
        return batches.Plan(64, 64, 1, 1, 4, 4, seed).slots(step)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_the_rate_rises_to_its_peak_and_falls_to_its_floor() -> None:
    def rates(shape: str, floor: float, ratio: float, steps: int) -> list[float]:
        warmup = schedule.warmup_steps(ratio, steps)
        return [
            schedule.share_of_peak(step, steps=steps, warmup=warmup, shape=shape, floor=floor) for step in range(steps)
        ]

    assert rates("constant", 0, 0.5, 4) == [0, 0.5, 1, 1]
    assert rates("linear", 0, 0, 4) == [1, 0.75, 0.5, 0.25]
    cosine = rates("cosine", 0.1, 0.1, 20)
    assert cosine[:3] == [0, 0.5, 1]
    assert 0.1 < cosine[-1] < 0.12
    assert schedule.warmup_steps(0.99, 5) == 4, "a warm-up as long as the run never reaches the rate"


def test_a_plan_and_an_estimate_for_eight_gpus(tmp_path: Path) -> None:
    made = resolved(tmp_path, "dpo", "model: Qwen/Qwen2.5-14B-Instruct\nhardware: h100x8\ntrain: {precision: bf16}\n")
    assert Torchtune().check(made, hardware.load("h100x8")) == []
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1?", "completion": "2", "rejected": "3"}\n')
    made = resolved(
        tmp_path, "dpo", f"model: Qwen/Qwen2.5-14B-Instruct\nhardware: h100x8\ndata: {tmp_path}/rows.jsonl\n"
        "train: {precision: bf16, global_batch: 16}\n",
    )  # fmt: skip
    built = plan.build(made, tmp_path / "run")
    guess = estimate.estimate(built)
    assert guess is not None
    assert guess.state_gb == pytest.approx(14.77 * 10 / 8, rel=0.01), "weights, reference, gradients, moments, in bf16"
    script = rundir.files(built)["local.sh"]
    assert "torch.distributed.run --nnodes 1 --nproc-per-node 8 --standalone -m launchers.plugins.torchtune" in script
