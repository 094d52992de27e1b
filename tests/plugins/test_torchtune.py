"""torchtune's stock recipes for real, on a CPU: each of the seven, resumed after a kill, and what comes out of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.writers import torchtune as export_torchtune
from launchers import envs
from launchers.backends.base import Job
from launchers.backends.torchtune import Torchtune
from launchers.checks import preflight
from launchers.machines import hardware
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import Overrides
from tests.conftest import REPO
from tests.plugins import torchtune_run
from tests.plugins.torchtune_run import QUIET, Training, render, resolved

LORA = "train: {lora: {rank: 4, alpha: 8}}\n"
LONG = pytest.mark.full
# recipe: method, processes, more keys
RECIPES = {
    "full_finetune_single_device": ("sft", 1, ""),
    "lora_finetune_single_device": ("sft", 1, LORA),
    "full_finetune_distributed": ("sft", 2, ""),
    "lora_finetune_distributed": ("sft", 2, LORA),
    "lora_dpo_single_device": ("dpo", 1, LORA),
    "lora_dpo_distributed": ("dpo", 2, LORA),
    "full_dpo_distributed": ("dpo", 2, ""),
}
# full_finetune_single_device is among those that are stopped, below
ORDINARY = ("lora_dpo_single_device", "full_dpo_distributed")


@pytest.mark.parametrize("name", [name if name in ORDINARY else pytest.param(name, marks=LONG) for name in RECIPES])
def test_each_stock_recipe_trains_on_every_row_and_leaves_a_whole_model(tmp_path: Path, name: str) -> None:
    method, processes, extra = RECIPES[name]
    training = render(tmp_path, method, rows=11, processes=processes, extra=extra)
    assert f"recipe: {name}\n" in (training.folder / "torchtune.yaml").read_text()
    done = training.do()
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    steps = training.curve("current_steps")
    assert steps == [1, 2, 3, 4], "11 rows, 8 a step, 2 passes"
    assert training.curve("total_steps") == [4] * 4
    if name != "full_dpo_distributed":  # it clips and does not say
        assert all(norm > 0 for norm in training.curve("grad_norm"))
    assert training.curve("lr")[:2] == [0.0, 1e-3]
    if method == "dpo":
        assert training.curve()[0] == pytest.approx(0.693147, abs=1e-5)
        assert training.curve()[-1] < 0.69
        assert training.log()[-1]["rewards/margins"] > 0
        assert training.log()[-1]["accuracy"] > 0.5
    else:
        assert training.curve()[-1] < training.curve()[0]
    _assert_left_a_whole_model(training, steps=4)


def _assert_left_a_whole_model(training: Training, steps: int) -> None:
    backend = Torchtune()
    assert backend.finished(training.folder)
    progress = backend.progress(training.folder)
    assert progress is not None
    assert (progress.done, progress.planned) == (steps, steps)
    merged = training.folder / "merged"
    assert {path.name for path in merged.iterdir()} >= {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
        "model.safetensors.index.json", "done.json",
    }  # fmt: skip
    assert not list(merged.glob("adapter*"))


@pytest.mark.full
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_or_one_learn_the_same(tmp_path: Path, name: str) -> None:
    """The same rows make the same steps, however many processes they are dealt to."""
    method, _, extra = RECIPES[name]
    curves = []
    for processes in (1, 2):
        training = render(tmp_path / str(processes), method, rows=16, processes=processes, extra=extra)
        done = training.do()
        assert done.returncode == 0, done.stderr[-3000:]
        curves.append(training.curve())
    if not extra:  # adapters begin at random, and ranks draw differently
        assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    else:
        assert curves[1][:2] == pytest.approx(curves[0][:2], abs=1e-5), "nothing is learned at the first step's rate, 0"


COMPARE = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
a, b = (load_file(next(Path(folder).glob("*.safetensors"))) for folder in sys.argv[1:3])
assert a.keys() == b.keys() and len(a) > 20
print(max(float((a[key] - b[key]).abs().max()) for key in a))
"""


def _difference(python: Path, one: Training, other: Training) -> float:
    folders = [str(training.folder / "merged") for training in (one, other)]
    done = subprocess.run([str(python), "-c", COMPARE, *folders], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    """Four passes of three steps, saved every two, dropout: the same losses and the same weights."""
    method, processes, extra = RECIPES[name]
    lora = extra and ", lora: {rank: 4, alpha: 8, dropout: 0.1}"
    keys = f"train: {{epochs: 4, save_every: 2{lora}}}\n"
    straight = render(tmp_path / "straight", method, rows=20, processes=processes, extra=keys)
    done = straight.do()
    assert done.returncode == 0, done.stderr[-3000:]
    killed = render(tmp_path / "killed", method, rows=20, processes=processes, extra=keys)
    process = killed.start()
    wanted = killed.folder / "checkpoints" / "step_4"
    end = time.monotonic() + 600
    while not wanted.exists():
        assert process.poll() is None, (killed.folder / "log.txt").read_text()[-3000:]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    for pid in [*_children(process.pid), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert not Torchtune().finished(killed.folder), "killed too late to prove anything"
    (killed.folder / "checkpoints" / "step_99.partial").mkdir()  # what a kill while saving leaves
    Torchtune().prepare(killed.folder)
    done = killed.do()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming from step" in done.stdout
    assert killed.curve("current_steps") == straight.curve("current_steps") == list(range(1, 13))
    assert killed.curve() == straight.curve()
    assert killed.curve("lr") == straight.curve("lr")
    assert _difference(envs.ensure("torchtune", "cpu"), killed, straight) == 0.0
    kept = sorted(path.name for path in (killed.folder / "checkpoints").iterdir())
    assert kept == ["step_10", "step_8"], "keep_checkpoints is 2, and the last step is the model"


STOPPED = [("full_finetune_single_device", 5), *(pytest.param(name, 2, marks=LONG) for name in RECIPES)]


@pytest.mark.parametrize(("name", "save_every"), STOPPED)
def test_a_training_that_is_asked_to_stop_saves_its_step_and_resumes_there(
    tmp_path: Path, name: str, save_every: int
) -> None:
    """Asked all the time, it does a step in each attempt, with the losses of one that is not asked."""
    method, processes, extra = RECIPES[name]
    lora = extra and ", lora: {rank: 4, alpha: 8, dropout: 0.1}"
    keys = f"train: {{epochs: 1, save_every: {save_every}{lora}}}\n"
    straight, asked = (render(tmp_path / run, method, 17, processes, keys) for run in ("straight", "asked"))
    done = straight.do()
    assert done.returncode == 0, done.stderr[-3000:]
    (asked.run / "stop").touch()
    for step in (1, 2, 3):
        done = asked.do()
        assert done.returncode == 0, done.stderr[-3000:]
        assert (f"stopped on request, with a checkpoint at step {step}" in done.stdout) == (step < 3), done.stdout
        assert Torchtune().finished(asked.folder) == (step == 3)
        assert (asked.folder / f"checkpoints/step_{step}/state.pt").exists() == (step < 3)
    assert asked.curve("current_steps") == [1, 2, 3]
    assert asked.curve() == straight.curve()
    assert asked.curve()[-1] < asked.curve()[0]
    if "dpo" not in method and not extra:
        assert all(norm > 0 for norm in asked.curve("grad_norm"))
    _assert_left_a_whole_model(asked, steps=3)
    assert asked.curve("lr") == straight.curve("lr")


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[1]) == pid:
                found += [*_children(int(entry.name)), int(entry.name)]
    return found


LOGITS_TUNE = """
import sys, torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torchtune import config
from launchers.plugins.torchtune.train import compose
from pathlib import Path
cfg = compose(Path(sys.argv[1]))
if sys.argv[3] != "-":
    cfg.checkpointer.checkpoint_dir = sys.argv[3]
model = config.instantiate(cfg.model)
model.load_state_dict(config.instantiate(cfg.checkpointer).load_checkpoint()["model"])
model.eval()
with torch.no_grad():
    save_file({"logits": model(torch.arange(5, 261).reshape(4, 64))}, sys.argv[2])
"""
LOGITS_HF = """
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = model(torch.arange(5, 261).reshape(4, 64)).logits
print(float((logits - load_file(sys.argv[2])["logits"]).abs().max()), float(logits.abs().max()))
"""
MAKE_LLAMA = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_theta": 500000.0}
sizes = dict(vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=131072, rms_norm_eps=1e-5, tie_word_embeddings=False)
LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=rope)).save_pretrained(sys.argv[1])
"""


def _run(python: Path, script: str, *words: object) -> str:
    done = subprocess.run(
        [str(python), "-c", script, *map(str, words)],
        cwd=REPO,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.full
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str, llamafactory_python: Path) -> None:
    """The model that we render is the model; after training, transformers reads what torchtune has written."""
    python = envs.ensure("torchtune", "cpu")
    model = REPO / "recipes" / "mini" / "model"
    if kind == "llama":
        model = tmp_path / "llama"
        _run(llamafactory_python, MAKE_LLAMA, model)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (model / name).write_text((REPO / "recipes" / "mini" / "model" / name).read_text())
    training = render(
        tmp_path, "sft", rows=8, extra=f"model: {model}\ntrain: {{epochs: 1, warmup_ratio: 0, lora: {{}}}}\n"
    )
    full = render(tmp_path / "full", "sft", rows=8, extra=f"model: {model}\n")
    saved = tmp_path / "logits.safetensors"
    _run(python, LOGITS_TUNE, full.folder, saved, "-")
    apart, size = map(float, _run(llamafactory_python, LOGITS_HF, model, saved).split())
    assert apart < 1e-4 * max(1.0, size)
    done = training.do()
    assert done.returncode == 0, done.stderr[-3000:]
    merged = training.folder / "merged"
    _run(python, LOGITS_TUNE, full.folder, saved, merged)
    apart, size = map(float, _run(llamafactory_python, LOGITS_HF, merged, saved).split())
    assert apart < 1e-4 * max(1.0, size)
    changed, _ = map(float, _run(llamafactory_python, LOGITS_HF, model, saved).split())
    assert changed > 1e-3, "the adapters are in the weights"


def test_rows_without_a_completion_in_reach_are_told_before_training(tmp_path: Path) -> None:
    training = render(tmp_path, "sft", rows=9, extra="train: {max_length: 12}\n")
    done = training.do()
    assert done.returncode == 2
    told = Torchtune().reason(done.stdout)
    assert told.startswith("9 of 9 inspected rows (row 1 first) have no token with loss: raise train.max_length (12)")
    assert not (training.folder / "trainer_log.jsonl").exists()


FAULTS = {
    "batch_sizes: 2": "full_finetune_single_device does not read this key; did you mean 'batch_size'?",
    "optimizer.lrr: 2": "torchtune's optimizer.lrr: AdamW has no such argument; did you mean 'lr'",
    "loss._component_: torchtune.modules.loss.CELoss": "Error loading 'torchtune.modules.loss.CELoss'",
    "model.lora_rank: 4": "torchtune's model.lora_rank: qwen2 has no such argument",
}


def test_the_check_names_our_key_and_its_line(tmp_path: Path) -> None:
    """`tune validate` says nothing of the first, and names no line for any."""
    training = render(tmp_path, "sft")
    native = {line.split(": ")[0]: line.split(": ")[1] for line in FAULTS}
    native = {key: int(value) if value.isdigit() else value for key, value in native.items()}
    (training.folder / "native.json").write_text(json.dumps(native))
    origins = {key: [f"native.{key}", f"recipe.yaml:{at}"] for at, key in enumerate(native, 20)}
    (training.folder / "origins.json").write_text(json.dumps(origins))
    done = training.do()
    assert done.returncode == 2
    lines = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    for at, (key, told) in enumerate(zip(native, FAULTS.values(), strict=True), 20):
        (line,) = [line for line in lines if f"torchtune's {key}:" in line]
        assert line.startswith(f"error: recipe.yaml:{at}: native.{key}: ")
        assert told in line


CHECK_ALL = """
import sys
from pathlib import Path
from launchers.plugins.torchtune import check
from launchers.plugins.torchtune.train import compose
for folder in map(Path, sys.argv[1:]):
    config = compose(folder)
    for key, message in check.faults(config):
        if key != "device":
            print("FAULT", folder, key, message)
    print("CHECKED", config.posttrain.recipe)
"""
# What recipes of real models say, beside those of the tree: (method, more keys)
REAL = (
    ("sft", "model: meta-llama/Llama-3.1-8B-Instruct\n"
            "native: {optimizer._component_: bitsandbytes.optim.PagedAdamW8bit}\n"),
    ("sft", "model: meta-llama/Llama-3.1-8B-Instruct\n"
            "train: {lora: {targets: [q_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}}\n"
            "native: {enable_activation_offloading: true, model.quantize_base: true}\n"),
    ("dpo", "model: meta-llama/Llama-3.1-8B-Instruct\ntrain: {lora: {rank: 8}}\npreference: {loss: hinge}\n"),
    ("dpo", "model: Qwen/Qwen2.5-14B-Instruct\ntrain: {lora: {rank: 8}}\n"),
    ("dpo", "model: Qwen/Qwen2.5-14B-Instruct\nnative: {fsdp_cpu_offload: true}\n"),
    ("sft", "model: Qwen/Qwen2.5-14B-Instruct\ntrain: {packing: true}\n"),
)  # fmt: skip


def test_torchtune_accepts_every_rendered_config(tmp_path: Path) -> None:
    """Every recipe of the tree at every scale, and the real models on one H200 and on eight H100."""
    folders = []
    jobs = []
    for name in compose.recipe_names():
        for scale in (None, *compose.scales_of(name)):
            found, faults = preflight.check(compose.resolve(name, Overrides(scale)))
            assert not faults
            if found.recipe.trainer == "torchtune":
                jobs += plan.build(found, tmp_path / name / (scale or "full")).jobs
    for at, (method, extra) in enumerate(REAL):
        for machines in ("h200x1", "h100x8"):
            keys = extra + f"hardware: {machines}\n"
            found = resolved(tmp_path / f"{at}-{machines}", method, "train: {global_batch: 32}\n")
            tree = yaml_tree.merge(found.tree, yaml_tree.parse(keys + "\n", "keys"))
            found = replace(found, recipe=compose.validate(tree), tree=tree)
            profile = hardware.load(machines)
            faults = [fault for fault in Torchtune().check(found, profile) if "offloading" not in fault.key]
            assert faults == []
            jobs.append(Job(found, profile, plan.derive_batch(found, profile), str(at) + machines, tmp_path))
    for number, job in enumerate(jobs):
        run = tmp_path / str(number)
        for file, text in Torchtune().render(job, run).items():
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            (run / file).write_text(text)
        folders.append(run / job.output)
    told = _run(envs.ensure("torchtune", "cpu"), CHECK_ALL, *folders)
    assert [line for line in told.splitlines() if line.startswith("FAULT")] == []
    kinds = [line.split()[1] for line in told.splitlines() if line.startswith("CHECKED")]
    assert len(kinds) == len(jobs)
    assert set(kinds) == set(RECIPES)


def test_cuda_without_a_gpu_is_an_error_not_a_cpu_run(tmp_path: Path) -> None:
    training = render(tmp_path, "sft")
    path = training.folder / "torchtune.yaml"
    path.write_text(path.read_text().replace("device: cpu", "device: cuda"))
    done = training.do()
    assert done.returncode == 2
    assert "torch finds no GPU" in Torchtune().reason(done.stdout)
    assert not (training.folder / "merged").exists()


def test_the_list_of_its_keys_is_current() -> None:
    done = subprocess.run(
        [str(envs.ensure("torchtune", "cpu")), "-m", "launchers.plugins.torchtune.dump_keys"],
        cwd=REPO, env={**os.environ, **QUIET}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == json.loads((REPO / "configs" / "native" / "torchtune.json").read_text())


def test_helpers_make_what_export_makes() -> None:
    """The rows of these tests have the shapes that `export: {format: torchtune}` writes."""
    row = {"prompt": [{"role": "user", "content": "10+13=?"}], "completion": "\\boxed{23}", "rejected": "\\boxed{237}"}
    assert export_torchtune.chat(row) == torchtune_run.conversations(1)[0]
    assert export_torchtune.pair(row) == torchtune_run.pairs(1)[0]
