"""Every recipe of the tree resolves and passes its checks; mistakes are one line each, all at once."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose, schema_docs
from launchers.recipe.compose import Overrides
from tests.conftest import REPO, Repo

BASE = "extends: [../min_o1/_sft.yaml]\n"
GOOD = BASE + (
    "data: rows.jsonl\ntrain: {global_batch: 256, micro_batch: 4, learning_rate: 1e-5, epochs: 3, max_length: 2048}\n"
)
ROW = '{"prompt": "1+1?", "completion": "\\\\boxed{2}", "answer": "2"}\n'


@pytest.mark.parametrize("name", compose.recipe_names())
@pytest.mark.parametrize("scale", [None, *compose.SCALES])
def test_every_recipe_is_without_fault(name: str, scale: str | None) -> None:
    _, faults = preflight.check(compose.resolve(name, Overrides(scale)))
    assert faults == []


@pytest.mark.parametrize("name", compose.recipe_names())
def test_recipes_are_short_and_open_with_how_to_run_them(name: str) -> None:
    lines = (REPO / "recipes" / f"{name}.yaml").read_text().splitlines()
    assert len(lines) <= 60
    assert lines[0].startswith("# ")
    assert any(f"make {name}" in line for line in lines[:5])


def test_a_recipes_system_prompt_is_given_to_its_benchmarks() -> None:
    for said, expected in (("python", {"system": "python", "instructions": "user"}), ("null", {})):
        resolved = compose.resolve("min_o1/sft_short", Overrides(settings=(("system_prompt", said, "--set"),)))
        load = plan.eval_spec(resolved, "after", "model", None).steps[0].params
        assert {name: load[name] for name in ("system", "instructions") if name in load} == expected


def test_what_stands_in_a_thought_is_no_answer() -> None:
    resolved = compose.resolve("sky_t1/sft", Overrides())
    scores = [step.params for step in plan.eval_spec(resolved, "after", "model", None).steps if step.kind == "score"]
    assert {one["reward"]: one["params"].get("thinking") for one in scores} == {
        "math": "sky_t1", "choice": "sky_t1", "code": "sky_t1"
    }  # fmt: skip
    plain = compose.resolve("min_o1/sft_short", Overrides())
    assert "thinking" not in plan.eval_spec(plain, "after", "model", None).steps[-1].params["params"]


def test_a_pipeline_names_the_recipes_values(repo: Repo) -> None:
    repo.write("recipes/x/rows.jsonl", ROW)
    steps = '- load: {path: rows.jsonl}\n  - decontaminate: {against: "${eval.tasks}", paths: {math500: rows.jsonl}}\n'
    generate = '- generate: {model: "${model}", revision: "${revision}"}\n'
    repo.write("recipes/x/data.yaml", f"clean:\n  {steps}  {generate}")
    repo.write("recipes/x/y.yaml", GOOD.replace("data: rows.jsonl", "data: clean") + "eval: {tasks: [math500]}\n")
    local = repo.launch("check", "x/y", "--set", f"model={REPO / 'recipes/mini/model'}", "--set", "revision=null")
    assert local.returncode == 0, local.stderr
    repo.write("recipes/x/data.yaml", 'clean:\n  - lim: {run: "${from_run}"}\n')
    (line,) = repo.launch("check", "x/y").stderr.splitlines()
    assert line == "error: recipes/x/data.yaml:2: ${from_run}: the recipe does not set this key"


def test_schema_file_is_current() -> None:
    assert json.loads((REPO / "configs" / "recipe.schema.json").read_text()) == schema_docs.json_schema()


def test_numbers_that_yaml_1_1_takes_for_words_are_numbers(repo: Repo) -> None:
    repo.write("recipes/x/rows.jsonl", ROW)
    repo.write("recipes/x/y.yaml", GOOD)
    shown = json.loads(repo.launch("show", "x/y", "--json").stdout)
    assert shown["recipe"]["train"]["learning_rate"] == 1e-5
    assert shown["where"]["train.learning_rate"] == "recipes/x/y.yaml:3"
    assert shown["where"]["eval.tasks[0]"] == "recipes/min_o1/_base.yaml:11"


def _faulty(repo: Repo, text: str, *words: str) -> list[str]:
    repo.write("recipes/x/rows.jsonl", ROW)
    repo.write("recipes/x/y.yaml", text)
    done = repo.launch("check", "x/y", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


MISTAKES = {
    "misspelt": ("train: {learning_rat: 1.0}", "y.yaml:2: train.learning_rat", "train.learning_rate"),
    "misplaced": ("learning_rate: 1.0", "y.yaml:2: learning_rate", "'train.learning_rate'"),
    "mistyped": ("train: {epochs: three}", "y.yaml:2: train.epochs", "must be a number, not 'three'"),
    "a word for a number": ('train: {global_batch: "256"}', "train.global_batch", "must be an integer"),
    "not a choice": ("trainer: llamafactry", "y.yaml:2: trainer", "did you mean 'llamafactory'"),
    "negative": ("train: {global_batch: -1}", "train.global_batch", "greater than 0"),
    "LlamaFactory's name": ("train: {cutoff_len: 1}", "train.cutoff_len", "here it is train.max_length"),
    "torchtune's name": ("train: {max_seq_len: 1}", "train.max_seq_len", "here it is train.max_length"),
    "axolotl's name": ("train: {sequence_len: 1}", "train.sequence_len", "here it is train.max_length"),
    "TRL's name in native": ("native: {max_length: 1}", "native.max_length", "set train.max_length instead"),
    "another's in native": ("native: {max_seq_len: 1}", "native.max_seq_len", "here it is train.max_length"),
    "ours in native": ("native: {cutoff_len: 1}", "native.cutoff_len", "set train.max_length instead"),
    "misspelt in native": ("native: {neftune_noise_alfa: 5}", "native.neftune_noise_alfa", "'neftune_noise_alpha'"),
    "mistyped in native": ("native: {mask_history: 3}", "native.mask_history", "must be bool, not 3"),
    "unknown template": ("native: {template: qwen25}", "native.template", "did you mean 'qwen"),
    "unknown deepspeed": ("native: {deepspeed: zero4}", "native.deepspeed", "did you mean 'zero"),
    "derived": ("native: {gradient_accumulation_steps: 4}", "native.gradient_accumulation_steps", "derived from"),
    "no flash-attn": ("native: {flash_attn: fa2}", "native.flash_attn", "use sdpa or auto"),
    "hardware": ("hardware: h800x5", "y.yaml:2: hardware", "did you mean 'h800x"),
    "site": ("site: nowhere", "y.yaml:2: site", "known: example"),
    "task": ("eval: [gsm8, math500]", "eval.tasks", "did you mean 'gsm8k'?"),
    "model": ("model: ./no/such/model", "y.yaml:2: model", "neither a local folder nor a Hub id"),
    "data file": ("data: nothing.jsonl", "y.yaml:2: data", "no such file"),
    "data name": ("data: math3k_ct", "y.yaml:2: data", "no pipeline 'math3k_ct'"),
    "a template at the top": ("template: qwen", "y.yaml:2: template", "here it is native.template"),
    "a chat template": ("chat_template: qwen", "y.yaml:2: chat_template", "here it is native.template"),
    "both ends": ("train: {steps: 5}", "train.epochs, train.steps", "both are set"),
    "batch": ("train: {micro_batch: 3}", "train.global_batch", "256 is not divisible by micro_batch 3 × 4 GPUs = 12: "
              "use train.global_batch 252 or 264, or train.micro_batch 1, 2, 4, 8"),
    "endless": ("train: {global_batch: 99999999999999999999}", "train.global_batch", "less than or equal to"),
    "a huge batch": ("train: {global_batch: 2000000001}", "train.global_batch", "is not divisible"),
    "not finite": ("train: {learning_rate: .inf}", "train.learning_rate", "finite number"),
    "not finite in native": ("native: {neftune_noise_alpha: .nan}", "native.neftune_noise_alpha", "finite number"),
    "a secret": ("native: {hub_token: hf_x}", "native.hub_token", "set them in the environment"),
    "both shardings": ("native: {fsdp_config: full_shard}", "native.deepspeed", "exclude each other"),
    "rows chosen by the trainer": ("native: {max_samples: 2}", "native.max_samples", "choose rows in the pipeline"),
    "a native key at the top": ("neftune_noise_alpha: 5", "y.yaml:2", "under native: native.neftune_noise_alpha"),
    "TRL's name of online RL": ("num_generations: 8", "y.yaml:2: num_generations", "here it is rollout.samples"),
    "PEFT's name": ("train: {lora: {r: 8}}", "y.yaml:2: train.lora.r", "here it is train.lora.rank"),
    "a package that is not there": ("native: {use_unsloth: true}", "native.use_unsloth", "environment has no unsloth"),
    "an optimizer of bitsandbytes": ("native: {optim: paged_adamw_8bit}", "native.optim", "no bitsandbytes: use adamw"),
    "capitals": ("method: SFT", "y.yaml:2: method", "did you mean 'sft'?"),
    "verl's number of GPUs": ("n_gpus_per_node: 4", "y.yaml:2: n_gpus_per_node", "here it is hardware"),
    "a path for DeepSpeed": ("native: {deepspeed: my/zero3.json}", "native.deepspeed", "did you mean 'zero3'"),
    "a Hub data set": ("data: acme/rows", "y.yaml:2: data", "a pipeline loads a Hub data set: `load: {hub: acme/rows"),
    "a tab": ("eval:\n\ttasks: [gsm8k]", "y.yaml:3", "indent with spaces"),
    "a task twice": ("eval: [gsm8k, gsm8k]", "eval.tasks", "'gsm8k' is listed 2 times: keep one"),
    "no tasks": ("eval: []", "eval.tasks", "at least 1"),
    "a reserved control": ("controls: {after: {}}", "controls.after", "choose another"),
    "a control that is a path": ("controls: {../x: {}}", "controls", "should match pattern"),
    "a control elsewhere": ("controls: {a: {hardware: cpu}}", "controls.a.hardware", "a control cannot change"),
    "a control's model": ("controls: {a: {model: ./nope}}", "controls.a", "neither a local folder nor a Hub id"),
    "a list for a mapping": ("train: []", "y.yaml:2: train", "must be a mapping"),
    "a number for a mapping": ("eval: 3", "y.yaml:2: eval", "must be a mapping"),
    "a number for a control": ("controls: {a: 3}", "controls.a", "must be a mapping"),
    "time": ("time_limit: tomorrow", "time_limit", "should match pattern"),
    "nested without end": ("site: " + "[" * 100_000 + "]" * 100_000, "y.yaml:2", "nested more than 100 levels"),
    "an alias": ("site: &a x\nrevision: *a", "y.yaml:2", "aliases are not allowed"),
    "an explicit type": ("site: !!int x", "y.yaml:2", "not a plain value"),
    "greedy twice": ("eval: {n: 4}", "eval.n", "4 greedy samples are identical"),
    "prompt": ("system_prompt: boxd", "y.yaml:2: system_prompt", "'boxed'"),
    "control": ("controls: {other: {data: nowhere}}", "controls.other", "no pipeline 'nowhere'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, make_repo: Callable[[Path], Repo]
) -> dict[str, tuple[int, list[str]]]:
    """By mistake, what `check` ends with and says."""
    repo = make_repo(tmp_path_factory.mktemp("mistakes") / "repo")
    for number, (text, _, _) in enumerate(MISTAKES.values()):
        repo.write(f"recipes/x{number}/_good.yaml", GOOD)
        repo.write(f"recipes/x{number}/rows.jsonl", ROW)
        repo.write(f"recipes/x{number}/y.yaml", f"extends: [_good.yaml]\n{text}\n")
    ends = repo.launch_each(*(["check", f"x{number}/y"] for number in range(len(MISTAKES))))
    return dict(zip(MISTAKES, ends, strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_place_key_and_remedy(told: dict[str, tuple[int, list[str]]], mistake: str) -> None:
    (status, lines), (_, key, remedy) = told[mistake], MISTAKES[mistake]
    assert (status, len(lines)) == (2, 1), lines
    assert key in lines[0]
    assert remedy in lines[0]


@pytest.mark.parametrize("option", [".train=4", "native.template=", "zzz=1", "train.=1"])
def test_a_mistake_without_a_hint_ends_without_a_semicolon(repo: Repo, option: str) -> None:
    (line,) = _faulty(repo, GOOD, "--set", option)
    assert not line.endswith((";", "; ", " "))


def test_all_mistakes_are_told_at_once(repo: Repo) -> None:
    text = GOOD.replace("data: rows.jsonl", "data: rows.jsonl\nhardwar: h800x4\nmodell: x")
    text = text.replace("learning_rate: 1e-5", "lr: 1e-5")
    lines = _faulty(repo, text)
    assert [line.split(": ")[2] for line in lines] == ["train.learning_rate", "train.lr", "hardwar", "modell"]


def test_faults_of_pipelines_and_native_keys_come_together(repo: Repo) -> None:
    repo.write("recipes/x/data.yaml", "mine:\n  - laod: {path: a}\n  - select: {min_scor: 1}\n")
    text = GOOD.replace("data: rows.jsonl", "data: mine\nhardwar: cpu") + "native: {tempalte: qwen}\n"
    lines = _faulty(repo, text)
    assert any("hardwar: unknown key; did you mean 'hardware'?" in line for line in lines)
    assert any("recipes/x/data.yaml:2: mine[0].laod" in line and "'load'" in line for line in lines)
    assert any("recipes/x/data.yaml:3: mine[1].select.min_scor" in line and "'min_score'" in line for line in lines)
    assert any("native.tempalte" in line and "'template'" in line for line in lines)


def test_yaml_syntax_is_told_with_its_line(repo: Repo) -> None:
    assert "recipes/x/y.yaml:2: not valid YAML" in _faulty(repo, "a: 1\nb: [1, 2\nc: 3\n")[0].replace(":3:", ":2:")


def test_a_key_written_twice_is_refused(repo: Repo) -> None:
    (line,) = _faulty(repo, GOOD + "data: other.jsonl\n")
    assert line.endswith("recipes/x/y.yaml:4: data: duplicate key (first in line 2): keep one")


def test_python_tags_are_not_constructed(repo: Repo) -> None:
    (line,) = _faulty(repo, GOOD + "site: !!python/object/apply:os.system [id]\n")
    assert "recipes/x/y.yaml:4" in line


def test_cyclic_extends_is_refused(repo: Repo) -> None:
    repo.write("recipes/x/_a.yaml", "extends: [_b.yaml]\n")
    repo.write("recipes/x/_b.yaml", "extends: [_a.yaml]\n")
    (line,) = _faulty(repo, "extends: [_a.yaml]\n")
    assert "extends itself: recipes/x/_a.yaml -> recipes/x/_b.yaml -> recipes/x/_a.yaml" in line


def test_missing_extends_names_the_nearest(repo: Repo) -> None:
    (line,) = _faulty(repo, GOOD.replace("_sft.yaml", "_stf.yaml"))
    assert "recipes/x/y.yaml:1: extends: no such file" in line
    assert "'_sft.yaml'" in line


def test_an_unknown_recipe_verb_and_scale_are_one_line(repo: Repo) -> None:
    assert "did you mean 'min_o1/sft_short'" in repo.launch("plan", "min_o1/sft_shrt").stderr
    assert "'mini'" in repo.launch("plan", "min_o1/sft_short", "--scale", "min").stderr
    done = repo.launch("pln", "min_o1/sft_short")
    assert (done.returncode, "'plan'" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


PEEKED = {
    "no rows": ("rows.jsonl", "", "holds no records"),
    "other columns": ("rows.jsonl", '{"a": 1, "b": 2}\n', "a, b"),
    "not JSON": ("rows.json", "oops", "not JSON"),
}


@pytest.mark.parametrize("case", PEEKED)
def test_local_rows_are_looked_at_before_anything_starts(repo: Repo, case: str) -> None:
    name, text, told = PEEKED[case]
    rows = repo.write(name, text)
    done = repo.launch("check", "min_o1/sft_short", "--set", f"data={rows}")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert told in done.stderr


@pytest.mark.parametrize("out", ["rows.jsonl", "/proc/nowhere"])
def test_a_root_for_runs_that_cannot_be_one_is_refused(repo: Repo, out: str) -> None:
    repo.write("rows.jsonl", ROW)
    done = repo.launch("render", "min_o1/sft_short", "--out", out)
    assert (done.returncode, len(done.stderr.splitlines()), "Traceback" in done.stderr) == (2, 1, False)


def test_a_pipeline_of_another_family_is_found_for_the_recipe_that_extends_it(repo: Repo) -> None:
    (line,) = _faulty(repo, "extends: [../min_o1/sft_short.yaml]\n")
    assert "no pipeline 'math3k_cot' in recipes/x/data.yaml; copy it from recipes/min_o1/data.yaml" in line


def test_a_pipeline_may_begin_with_another(repo: Repo) -> None:
    repo.write("recipes/x/rows.jsonl", ROW * 3)
    repo.write("recipes/x/y.yaml", GOOD.replace("rows.jsonl", "part"))
    pipelines = "whole:\n  - load: {path: rows.jsonl}\npart:\n  - pipeline: whole\n  - select: {n: 1}\n"
    repo.write("recipes/x/data.yaml", pipelines)
    found = json.loads(repo.launch("plan", "x/y", "--json").stdout)["pipelines"]["data/train.json"]
    assert [step["step"] for step in found] == ["load", "select", "export"]
    for wrong, words in {"whoel": "did you mean 'whole'?", "part": "circular: part"}.items():
        repo.write("recipes/x/data.yaml", pipelines.replace("pipeline: whole", f"pipeline: {wrong}"))
        done = repo.launch("check", "x/y")
        assert done.stderr.startswith("error: recipes/x/data.yaml:4: part.pipeline: "), done.stderr
        assert words in done.stderr


def test_a_site_or_hardware_profile_is_checked_like_a_recipe(repo: Repo) -> None:
    repo.write("configs/sites/bad.yaml", 'partitoin: gpu\nenviron: {"A;touch pwned": x}\n')
    done = repo.launch("check", "min_o1/sft_short", "--set", "site=bad")
    assert "configs/sites/bad.yaml:1: partitoin: unknown key; did you mean 'partition'?" in done.stderr
    assert "configs/sites/bad.yaml:2: environ" in done.stderr
    repo.write("configs/hardware/bad.yaml", "device: gpu\n")
    done = repo.launch("check", "min_o1/sft_short", "--set", "hardware=bad")
    assert "configs/hardware/bad.yaml:1: device: 'gpu' is not one of cpu, cuda" in done.stderr
    assert "nodes: missing" in done.stderr


def test_overrides_win_and_say_who_they_are(repo: Repo) -> None:
    words = ("--set", "train.learning_rate=2e-5", "--set", "eval=[gsm8k]", "--set", "data=min_o1: x;$(id)")
    shown = json.loads(repo.launch("show", "min_o1/sft_short", *words, "--json").stdout)
    assert shown["recipe"]["train"]["learning_rate"] == 2e-5
    assert shown["recipe"]["eval"]["tasks"] == ["gsm8k"]
    assert shown["recipe"]["data"] == "min_o1: x;$(id)"
    assert shown["where"]["data"] == "--set data"


def test_make_passes_hostile_values_untouched(repo: Repo) -> None:
    hostile = "a b'\"; touch pwned; $(shell touch pwned) $$(touch pwned) `touch pwned`"
    done = repo.make("plan/min_o1/sft_short", f"MODEL={hostile}", "SCALE=mini")
    assert done.returncode != 0
    assert "is neither a local folder nor a Hub id" in done.stderr
    assert not (repo.path / "pwned").exists()


@pytest.mark.parametrize("verb", ["list", "show", "check", "plan"])
def test_the_launcher_answers_in_half_a_second_of_cpu_without_heavy_imports(verb: str) -> None:
    words = [verb] if verb == "list" else [verb, "min_o1/sft_short"]
    heavy = (
        "torch",
        "transformers",
        "datasets",
        "pyarrow",
        "pandas",
        "numpy",
        "openai",
        "vllm",
        "sympy",
        "matplotlib",
    )
    code = (
        "import sys\nfrom launchers.cli import main\n"
        f"sys.argv = ['launchers', *{words!r}]\n"
        "try:\n    main()\nfinally:\n"
        f"    print(*[m for m in {heavy!r} if m in sys.modules], file=sys.stderr)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "", "imported before it is needed"
    assert after.ru_utime - before.ru_utime < 5  # a gross bound only: tests/bench measures it


def test_packing_and_missing_rows_leave_the_steps_open() -> None:
    from launchers.backends.base import Batch
    from launchers.plan.plan import planned_steps

    assert planned_steps(3052, 3, Batch(256, 4, 16, 4)) == 36
    assert planned_steps(1, 1, Batch(256, 4, 16, 4)) == 1
    assert planned_steps(257, 2, Batch(256, 64, 1, 4)) == 4
