"""What trainers see of their rows: four families' tokenizers under every trainer's own code, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from launchers import envs
from launchers.backends.base import EnvPython, InRun
from launchers.checks import preflight, tokens
from launchers.checks.tokens import Inspection, Rendered, Vocabulary
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.report import page
from launchers.report.results import Results
from launchers.report.sections import data as report_data
from launchers.run import directory as rundir
from launchers.run import summary
from launchers.run.directory import Run
from launchers.targets import local
from rewards.thinking import PRESETS
from tests.conftest import REPO
from tests.launchers.test_report import Outline

ROWS = [
    {"id": "1", "prompt": [{"role": "user", "content": "How many primes are below 20?"}],
     "completion": "They are 2, 3, 5, 7, 11, 13, 17 and 19.\n\n\\boxed{8}", "answer": "8", "source": "primes"},
    {"id": "2", "prompt": [{"role": "user", "content": "Find 3x if x + 2 = 7."}],
     "completion": "x = 5, so 3x = \\boxed{15}", "answer": "15", "source": "algebra"},
]  # fmt: skip
INSPECT = """
import importlib, pathlib, sys
for folder in sys.argv[2:]:
    importlib.import_module(sys.argv[1]).main([folder])
"""
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO)}
RECIPES = {"llamafactory": "min_o1/sft_short", "torchtune": "min_o1/sft_short", "verl": "min_o1/grpo"}
# Families that each trainer has a template or a builder for.
CELLS = {
    "llamafactory": ("llama3", "qwen2.5", "gemma", "mistral"),
    "torchtune": ("llama3", "qwen2.5"),
    "verl": ("llama3", "qwen2.5", "gemma", "mistral"),
}


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory, llamafactory_python: Path) -> Path:
    folder = tmp_path_factory.mktemp("families")
    subprocess.run(
        [str(llamafactory_python), str(REPO / "tests/launchers/small_models.py"), str(folder)], check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


def rows_file(folder: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(out: Path, trainer: str, model: Path, data: Path, *more: str) -> Run:
    """A rendered run directory, with the trainer's own files of the rows."""
    given = [f"trainer={trainer}", f"model={model}", f"data={data}", "controls=null", *more]
    given += [] if trainer == "verl" else ["train.max_length=400"]
    settings = tuple(compose.parse_settings(given))
    resolved, faults = preflight.check(compose.resolve(RECIPES[trainer], Overrides("mini", settings)))
    assert not faults, faults
    run = rundir.locate(resolved, out)
    rundir.prepare(run)
    core = str(envs.interpreter("core"))
    if run.plan.rows() is None:
        spec = run.path / plan.data_file("")
        subprocess.run([core, "-m", "data_prep", "run", str(spec)], cwd=REPO, check=True, capture_output=True)
    return run


def rendered(out: Path, trainer: str, model: Path, data: Path) -> Path:
    """A training's folder."""
    run = made(out, trainer, model, data)
    return run.path / run.plan.main.output


def inspection(trainer: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """By the trainer's own code in one process."""
    python = envs.ensure(trainer, "cpu")
    environ = {**QUIET, "PATH": "/usr/bin:/bin", "VERL_USE_EXTERNAL_MODULES": "launchers.plugins.verl", "HOME": "/tmp"}
    module = f"launchers.plugins.{trainer}.tokens"
    return subprocess.run(
        [str(python), "-c", INSPECT, module, *map(str, folders)], env=environ, cwd=REPO, capture_output=True, text=True
    )


@dataclass(frozen=True)
class Seen:
    """What a trainer's own code says of the trainings here, by name: it is imported once for all of them."""

    folders: dict[str, Path]
    output: str

    def __getitem__(self, name: str) -> dict[str, Any]:
        """tokens.json of one."""
        assert (self.folders[name] / tokens.FILE).exists(), self.output[-6000:]
        return json.loads((self.folders[name] / tokens.FILE).read_text())


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, small_models: Path) -> Callable[[str], Seen]:
    @cache
    def of(trainer: str) -> Seen:
        place = tmp_path_factory.mktemp(trainer)
        data = rows_file(place / "data")
        folders = {name: rendered(place / "runs", trainer, small_models / name, data) for name in CELLS[trainer]}
        if trainer != "torchtune":
            asked = rows_file(place / "asked", ASKED)
            folders["system"] = rendered(place / "system", trainer, small_models / "gemma", asked)
        if trainer == "llamafactory":
            folders |= _cases(place, small_models / "qwen2.5")
            folders["foreign"] = rendered(place / "foreign", trainer, small_models / "gemma", data)
            config = folders["foreign"] / "llamafactory.yaml"
            config.write_text(config.read_text().replace('template: "gemma"', 'template: "llama3"'))
        else:
            folders["no template"] = _without_template(place, trainer, small_models, data)
        done = inspection(trainer, *folders.values())
        return Seen(folders, done.stdout + done.stderr)

    return of


def _cases(place: Path, model: Path) -> dict[str, Path]:
    trained: dict[str, Path] = {}
    folders = {}
    for number, (name, case) in enumerate(CASES.items()):
        rows = rows_file(place / f"rows{number}", case.rows)
        if (text := rows.read_text()) not in trained:
            trained[text] = rendered(place / f"runs{number}", "llamafactory", model, rows)
        folders[name] = edited(place / f"case{number}", trained[text], model, case)
    return folders


def _without_template(place: Path, trainer: str, small_models: Path, data: Path) -> Path:
    """A training whose model has lost its chat template."""
    model = shutil.copytree(small_models / "qwen2.5", place / "base")
    folder = rendered(place / "untemplated", trainer, model, data)
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": None}))
    return folder


@pytest.mark.parametrize("trainer", CELLS)
def test_every_trainer_tokenises_every_family_as_its_own_template_does(
    trainer: str, seen: Callable[[str], Seen]
) -> None:
    for family in CELLS[trainer]:
        found = seen(trainer)[family]
        assert found["faults"] == [], family
        assert found["counts"]["sequences"] == 2
        left = "2 longer than rollout.max_prompt_length" if trainer == "verl" else "0 truncated at max_length"
        assert left in Outline(page.build(seen(trainer).folders[family].parent).read_text()).words
        shown = found["shown"][0]["tokens"]
        if trainer != "verl":
            trained = "".join(text for text, loss, _ in shown if loss)
            ends = {"llama3": "<|eot_id|>", "qwen2.5": "<|im_end|>\n", "gemma": "<end_of_turn>\n", "mistral": "</s>"}
            assert trained.strip() == (ROWS[0]["completion"] + ends[family]).strip(), family
        begins = {"llama3": "<|begin_of_text|>", "qwen2.5": "<|im_start|>", "gemma": "<bos>", "mistral": "<s>"}
        assert shown[0] == [begins[family], False, True]


STEP = ["train.epochs=null", "train.steps=1", "train.save_every=1", "train.global_batch=2", "train.micro_batch=2"]
ONLINE = ["eval=null", "validation=null", "stop=null", "rollout.prompts=1", "rollout.samples=2",
          "rollout.max_prompt_length=200", "rollout.max_response_length=16"]  # fmt: skip


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("trainer", "family"), [(trainer, family) for trainer in CELLS for family in CELLS[trainer]])
def test_every_trainer_takes_a_step_with_every_family(
    tmp_path: Path, small_models: Path, trainer: str, family: str
) -> None:
    steps = [*STEP, *(ONLINE if trainer == "verl" else ["eval=null"])]
    run = made(tmp_path / "runs", trainer, small_models / family, rows_file(tmp_path), *steps)
    output = trained(run)
    assert run.plan.backend.finished(output)
    progress = run.plan.backend.progress(output)
    assert progress is not None
    assert (progress.done, progress.planned) == (1, 1)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("family", "template", "end"), [("llama3-base", "llama3", "<|eot_id|>"), ("qwen2.5-base", "qwen", "<|im_end|>")]
)
def test_a_trained_base_model_ends_its_turns(
    tmp_path: Path, small_models: Path, family: str, template: str, end: str
) -> None:
    """LlamaFactory #7454, Qwen3 #927: a base model's own end token stayed, and chats went on without end."""
    steps = (*STEP, "eval=null", f"native.template={template}")
    folder = trained(made(tmp_path, "llamafactory", small_models / family, rows_file(tmp_path), *steps))
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    said = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("tokenizer_config", "config")}
    assert (said["tokenizer_config"]["eos_token"], said["config"]["eos_token_id"]) == (end, ids[end])
    assert ids[end] in json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert end in (folder / "chat_template.jinja").read_text()


def trained(run: Run) -> Path:
    """The folder of a run's training, once each of its commands has succeeded."""
    job, backend = run.plan.main, run.plan.backend
    environ = {**os.environ, **local.environ(run.plan), "HF_HUB_OFFLINE": "1"}
    for command in backend.commands(job):
        words = [
            str(envs.ensure(word, "cpu")) if isinstance(word, EnvPython)
            else str(run.path / word) if isinstance(word, InRun) else word
            for word in command.argv
        ]  # fmt: skip
        done = subprocess.run(words, env={**environ, **dict(command.environ)}, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return run.path / job.output


def test_a_foreign_template_is_refused_by_its_tokens(seen: Callable[[str], Seen]) -> None:
    found = seen("llamafactory")["foreign"]
    assert any("'<|eot_id|>'" in fault and "no embedding" in fault for fault in found["faults"]), found["faults"]
    (difference,) = [fault for fault in found["faults"] if "differ" in fault]
    assert "<start_of_turn>" in difference
    assert "<|start_header_id|>" in difference


@dataclass(frozen=True)
class Case:
    """A training by LlamaFactory's `template`, of a Qwen2.5 whose chat template is edited: {text: instead}.

    `says`: part of the only fault, or of a note; empty where there is neither.
    """

    template: str
    says: str
    own: Mapping[str, str] = field(default_factory=dict)
    native: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    thinking: Mapping[str, Any] | None = None
    rows: Sequence[dict[str, Any]] = field(default_factory=lambda: ROWS)


THINK = {"name": "think", "open": "<think>", "close": "</think>", "prefilled": False, "tags": ["<think>", "</think>"]}
PREFILLED = {**THINK, "name": "think_prefilled", "prefilled": True}
THOUGHTS = [{**row, "completion": f"<think>\nI list them.\n</think>\n\n{row['completion']}"} for row in ROWS]
ASKED = [{**row, "prompt": [{"role": "system", "content": "Answer in a box."}, *row["prompt"]]} for row in ROWS]
# Edits of Qwen2.5's template.
UNPROMPTED = {
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n' }}": "",
}
EMPTY = "('<think>\n\n</think>\n\n' if message['role'] == 'assistant' and '</think>' not in message['content'] else '')"
PHI3 = {**UNPROMPTED, "<|im_start|>assistant\n' }}": "<|im_start|>assistant\n' }}{%- else %}<|endoftext|>"}
QWEN3 = {**UNPROMPTED, "message['content'] +": f"{EMPTY} + message['content'] +"}
QWQ = {**UNPROMPTED, "assistant\n'": "assistant\n<think>\n'"}
R1_DISTILL = {**QWQ, "message['content'] +": "message['content'].split('</think>')[-1] +"}
SYSTEM = "'<|im_start|>system\n' + messages[0]['content'] + '"
CASES = {
    "a general template in place of the model's own": Case("vicuna", "before the answer the trainer writes"),
    "the tokenizer loses spaces": Case(
        "qwen", "lose spaces between words", tokenizer={"tokenizer_class": "LlamaTokenizerFast"}
    ),
    "another family's LoRA targets": Case(
        "qwen",
        "without a module in the model: qkv_proj; it has down_proj",
        native={"finetuning_type": "lora", "lora_target": "q_proj,qkv_proj"},
    ),
    "a system message": Case("qwen", "", rows=ASKED),
    "other marks of a system message": Case(
        "qwen", "around the system message", {SYSTEM: SYSTEM.replace("system", "developer")}, rows=ASKED
    ),
    "a mark that only the model's own template writes": Case(
        "qwen", "around the system message", {SYSTEM: SYSTEM.replace("\n'", "\n<|system|>\n'")}, rows=ASKED
    ),
    "a text of the model's own before the system message": Case(
        "qwen", "before the user's text", {SYSTEM: SYSTEM.replace("\n'", "\nToday is Monday.\n'")}, rows=ASKED
    ),
    "white space of the model's own": Case("qwen", "between question and answer", {"assistant\n'": "assistant'"}),
    "more follows the answer's end": Case("qwen3_nothink", "", PHI3),
    "only a whole conversation has an empty thought": Case("qwen3_nothink", "", QWEN3),
    "the trainer adds an empty thought": Case("qwen3", "use its _nothink variant", QWEN3),
    "the trainer's prompt has an empty thought": Case(
        "qwen3", "writes <|im_end|> <|im_start|> assistant<think></think>", QWEN3, native={"enable_thinking": False}
    ),
    "the prompt opens a thought": Case("qwen3_nothink", "template <|im_end|> <|im_start|> assistant<think>", QWQ),
    "rows open it themselves": Case("qwen3", "ends in the opening tag", QWQ, thinking=THINK, rows=THOUGHTS),
    "the prompt opens the rows' thoughts": Case("qwen3", "", R1_DISTILL, thinking=PREFILLED, rows=THOUGHTS),
}


def edited(out: Path, trained: Path, model: Path, case: Case) -> Path:
    """A training's folder with the case's model and template."""
    shutil.copytree(model, out / "model")
    config = out / "model" / "tokenizer_config.json"
    values = json.loads(config.read_text())
    for text, instead in case.own.items():
        assert text in values["chat_template"]
        values["chat_template"] = values["chat_template"].replace(text, instead)
    config.write_text(json.dumps({**values, **case.tokenizer}))
    shutil.copytree(trained, out / "train")
    told = out / "train" / tokens.SETTINGS
    told.write_text(json.dumps({**json.loads(told.read_text()), "thinking": case.thinking}))
    config = out / "train" / "llamafactory.yaml"
    native = {"template": case.template, "model_name_or_path": str(out / "model"), **case.native}
    lines = [line for line in config.read_text().splitlines() if line.partition(":")[0] not in native]
    config.write_text("\n".join([*lines, *(f"{key}: {json.dumps(value)}" for key, value in native.items())]))
    return out / "train"


@pytest.mark.parametrize("name", CASES)
def test_the_rows_as_trained_are_compared_with_the_prompts_of_evaluation(
    name: str, seen: Callable[[str], Seen]
) -> None:
    found, case = seen("llamafactory")[name], CASES[name]
    lines = [*found["faults"], *found["notes"]]
    assert (bool(lines), len(found["faults"]) < 2) == (bool(case.says), True), lines
    assert case.says in "".join(lines), lines


@pytest.mark.parametrize("trainer", ["llamafactory", "verl"])
def test_a_template_without_system_messages_is_refused_before_training(
    trainer: str, seen: Callable[[str], Seen]
) -> None:
    assert any("System role not supported" in fault for fault in seen(trainer)["system"]["faults"])


@pytest.mark.parametrize("trainer", ["torchtune", "verl"])
def test_a_model_without_a_chat_template_is_named_with_the_remedy(trainer: str, seen: Callable[[str], Seen]) -> None:
    remedy = "/base has no chat template: put chat_template.jinja into a copy of it"
    lines = seen(trainer).output.splitlines()
    assert [line for line in lines if line.startswith("error: ") and remedy in line], lines[-40:]


def test_check_refuses_rows_that_are_made_and_must_not_be_trained_on(
    tmp_path: Path, small_models: Path, core_python: Path
) -> None:
    asked = [{**row, "prompt": [{"role": "system", "content": f"Box it: {tmp_path}"}, *row["prompt"]]} for row in ROWS]
    data, model = rows_file(tmp_path, asked), small_models / "gemma"
    settings = [f"model={model}", f"data={data}", "controls=null", "train.max_length=400"]
    argv = [str(core_python), "-m", "launchers", "check", RECIPES["llamafactory"], "--scale", "mini"]
    argv += [word for setting in settings for word in ("--set", setting)]
    before = subprocess.run(argv, cwd=REPO, capture_output=True, text=True)
    assert (before.returncode, before.stderr) == (0, "")  # nothing is made yet, and a check makes nothing
    rendered(tmp_path / "runs", "llamafactory", model, data)
    made = subprocess.run(argv, cwd=REPO, capture_output=True, text=True)
    assert made.returncode == 2
    assert "System role not supported" in made.stderr
    assert made.stderr.count("\n") == 1


# Characters are tokens; 1 is <s>, 2 </s>, 3 <end>.
def _letters(text: str) -> list[int]:
    return [ord(character) for character in text]


VOCABULARY = Vocabulary(
    lambda ids: "".join({1: "<s>", 2: "</s>", 3: "<end>"}.get(token, chr(token)) for token in ids),
    frozenset({1, 2, 3}), frozenset({2}), 1,
)  # fmt: skip
TOLD = {"trainer": "llamafactory", "template_key": "native.template", "model": "m", "online": False, "max_length": 60,
        "limit": 0.1, "thinking": None, "systems": [""]}  # fmt: skip
CHAT = [{"role": "user", "content": "What is 6 x 7?"}, {"role": "assistant", "content": "It is 42."}]


def _row(prompt: Sequence[int], answer: Sequence[int], loss_on_prompt: bool = False) -> Rendered:
    return Rendered([*prompt, *answer], [loss_on_prompt] * len(prompt) + [True] * len(answer))


PROMPT = [1, *_letters("Q What is 6 x 7? A ")]
ANSWER = [*_letters("It is 42."), 2]


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (_row(PROMPT, ANSWER), None),
        (_row([1, *PROMPT], ANSWER), "two BOS"),
        (_row(PROMPT, ANSWER[:-1]), "do not end in a trained stop token"),
        (_row(PROMPT, [*ANSWER[:-1], 3]), "do not end in a trained stop token"),
        (_row(PROMPT, ANSWER, loss_on_prompt=True), "loss on prompt tokens"),
        (Rendered(PROMPT, [False] * len(PROMPT)), "no token with loss"),
        (Rendered([*PROMPT, *ANSWER], [False] * len(PROMPT) + [True] * 9 + [False]), "trained stop token"),
    ],
)  # fmt: skip
def test_rows_that_must_not_be_trained_on(seen: Rendered, fault: str | None) -> None:
    found = Inspection(TOLD, "t", VOCABULARY, 1)
    found.add(0, CHAT, seen)
    assert len(found.faults()) == (fault is not None)
    assert fault is None or fault in found.faults()[0]


def _thought(length: int) -> list[dict[str, str]]:
    return [CHAT[0], {"role": "assistant", "content": f"<think>\n{'6 x 7 '[:length]}\n</think>\n\n42"}]


def test_thoughts_may_be_truncated_in_few_rows_only() -> None:
    chat = [CHAT[0], {"role": "assistant", "content": "<think>\n" + "6 x 7 is 7 x 6. " * 5 + "\n</think>\n\n42"}]
    whole = [*PROMPT, *_letters(chat[1]["content"]), 2]
    loss = [False] * len(PROMPT) + [True] * (len(whole) - len(PROMPT))
    for cut, fault in ((1, False), (4, True)):
        found = Inspection({**TOLD, "thinking": THINK}, "t", VOCABULARY, 20)
        for row in range(20):
            if row < cut:
                found.add(row, chat, Rendered(whole[:60], loss[:60]))
            else:
                found.add(row, _thought(3), _row(PROMPT, [*_letters(_thought(3)[1]["content"]), 2]))
        assert bool(found.faults()) is fault
        assert not fault or "thought truncated by train.max_length (60)" in found.faults()[0]


def test_the_rejected_side_counts_where_it_is_truncated_or_equal() -> None:
    thought = "<think>\n" + "6 x 7 is 7 x 6. " * 5
    chosen, rejected = ([CHAT[0], {"role": "assistant", "content": f"{thought}\n</think>\n\n{n}"}] for n in (42, 41))
    short = _row(PROMPT, [*_letters(_thought(3)[1]["content"]), 2])
    cut = _row(PROMPT, _letters(thought)[: 60 - len(PROMPT)])
    for sides, fault in (
        ((short, cut), "have their thought truncated"),  # 10 of 20 sequences
        ((cut, cut), "the same tokens on both sides"),
    ):
        found = Inspection({**TOLD, "thinking": THINK}, "t", VOCABULARY, 10)
        for row in range(10):
            found.add(row, _thought(3) if sides[0] is short else chosen, sides[0], "chosen")
            found.add(row, rejected, sides[1], "rejected")
        assert any(fault in line for line in found.faults()), found.faults()


@pytest.mark.parametrize(
    ("format", "answer", "fits"),
    [
        ("think", "<think>6 x 7</think>42", True),
        ("think", "It is 42.", False),
        ("think", "</think>42<think>6 x 7", False),
        ("think", "<think>6<think> x 7</think>42", False),
        ("think", "<think>6 x 7</think>42</think>", False),
        ("think_prefilled", "6 x 7</think>42", True),
        ("think_prefilled", "<think>6 x 7", False),
        ("zero", "<think>6 x 7</think><response>42</response>", True),
        ("zero", "<think>6 x 7</think>42", False),
        ("zero", "<response>42</response><think>6 x 7</think>", False),
    ],
)
def test_data_without_the_recipes_thinking_format_are_refused(format: str, answer: str, fits: bool) -> None:
    preset = PRESETS[format]
    settings = {**preset.model_dump(include={"name", "open", "close", "prefilled"}), "tags": preset.tags}
    found = Inspection({**TOLD, "thinking": settings, "max_length": 500}, "t", VOCABULARY, 1)
    found.add(0, [CHAT[0], {"role": "assistant", "content": answer}], _row(PROMPT, [*_letters(answer), 2]))
    faults = [fault for fault in found.faults() if f"lack the tags of thinking format {format!r}" in fault]
    assert len(faults) == (not fits)
    assert fits or f"row 1, {answer[:40]!r}," in faults[0]


def test_a_chat_template_that_drops_the_thought_or_opens_one_is_refused() -> None:
    told, chat = {**TOLD, "thinking": THINK, "max_length": 500}, _thought(5)
    seen = _row(PROMPT, [*_letters(chat[1]["content"]), 2])
    dropped = _row(PROMPT, [*_letters("42"), 2])
    opened = _row([*PROMPT, *_letters("<think>")], [*_letters(chat[1]["content"]), 2])
    for own, fault in (
        (seen, None),
        (dropped, "lose a thought"),
        (opened, "ends in the opening tag of a thought"),
    ):
        found = Inspection(told, "t", VOCABULARY, 1)
        found.add(0, chat, seen, own=own)
        assert bool(found.faults()) == (fault is not None)
        assert fault is None or any(fault in line for line in found.faults())


def test_different_system_prompts_of_training_and_evaluation_show_in_plan_and_report(tmp_path: Path) -> None:
    found = Inspection({**TOLD, "systems": ["Think step by step."]}, "t", VOCABULARY, 1)
    found.add(0, CHAT, _row(PROMPT, ANSWER))
    note = "rows are trained with system prompt '', but benchmarks use 'Think step by step.'"
    assert found.result()["notes"] == [note]
    resolved, _ = preflight.check(compose.resolve("min_o1/sft_short", Overrides("mini")))
    run = rundir.locate(resolved, tmp_path)
    assert note not in summary.facts(run.plan)["warnings"]
    (run.path / "train").mkdir(parents=True)
    found.write(run.path / "train")
    assert note in summary.facts(run.plan)["warnings"]
    assert report_data.notes(Results(run.path)) == [note]
