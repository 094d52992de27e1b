"""A model is one thing: what belongs to another is replaced or refused, and a Hub model is held at a commit."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launchers.backends import llamafactory
from launchers.checks import preflight
from launchers.plan.estimate import model_sizes
from launchers.recipe import compose, models
from launchers.recipe.compose import Overrides
from tests.conftest import Repo

COMMIT = "4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's API that says a model's commits, and the model's config.json."""

    def do_GET(self) -> None:
        error, answer = "", {"id": "Qwen/Qwen2.5-1.5B", "sha": COMMIT}
        if self.path == f"/Qwen/Qwen2.5-1.5B/resolve/{COMMIT}/config.json":
            answer = {"max_position_embeddings": 1024}
        elif not self.path.startswith("/api/models/Qwen/Qwen2.5-1.5B"):
            error = "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound"
        elif "/revision/" in self.path and not self.path.endswith(COMMIT):
            error = "RevisionNotFound"
        body = json.dumps({} if error else answer).encode()
        self.send_response(404 if error else 200)
        for name, value in {"X-Error-Code": error, "ETag": '"1"', "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def _faults(name: str, *pairs: str) -> list[str]:
    _, faults = preflight.check(compose.resolve(name, Overrides(None, tuple(compose.parse_settings(pairs)))))
    return [str(fault) for fault in faults]


def test_lengths_beyond_the_models_positions_name_both() -> None:
    (fault,) = _faults("min_o1/sft_short", "train.max_length=8192")
    assert fault.endswith("8192 tokens exceed the 4096 positions of 'Qwen/Qwen2.5-Math-1.5B'")
    (fault,) = _faults("min_o1/grpo", "rollout.max_response_length=8192")
    assert "rollout.max_response_length" in fault
    assert "4096" in fault
    assert _faults("min_o1/sft_long") == []  # it says so itself
    assert (
        len(_faults("min_o1/sft_long", "model=Qwen/Qwen2.5-Math-7B")) == 1
    )  # another model's extrapolation is not its


# What the catalogue took another model's template for, refusing the right one.
TEMPLATES = {
    "google/gemma-2b-it": ("gemma", "llama3"),
    "Qwen/Qwen3-4B-Instruct-2507": ("qwen3_nothink", "llama3"),
    "Qwen/Qwen3-4B": ("qwen3_nothink", "mistral"),  # trained without thoughts
    "microsoft/phi-4": ("phi4", "llama3"),
    "01-ai/Yi-1.5-6B-Chat": ("yi", "qwen"),
    "unsloth/phi-4": ("phi4", "llama3"),  # another owner's copy
    "Qwen/Qwen2.5-1.5B": ("chatml", "gemma"),  # a general template, of no family
}


@pytest.mark.parametrize("model", TEMPLATES)
def test_a_template_is_refused_where_it_is_another_familys(model: str) -> None:
    right, foreign = (
        _faults("min_o1/sft_short", f"model={model}", f"native.template={name}", "train.max_length=512")
        for name in TEMPLATES[model]
    )
    assert right == []
    assert [line.partition(": native.template: ")[2].split(":")[0] for line in foreign] == [
        f"{TEMPLATES[model][1]!r} is not the chat template of {model!r}, "
        f"which is {llamafactory.known_template(model)!r}"
    ]


def test_a_template_is_asked_for_where_the_name_says_none() -> None:
    (fault,) = _faults("min_o1/sft_short", "model=microsoft/Phi-4-mini-instruct")
    assert "the chat template of 'microsoft/Phi-4-mini-instruct' is unknown" in fault
    assert _faults("min_o1/sft_short", "model=microsoft/Phi-4-mini-instruct", "native.template=phi4") == []


def test_a_local_models_template_is_not_guessed_against_what_is_given(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ '<|im_start|>user<|im_sep|>' }}")
    assert _faults("min_o1/sft_short", f"model={tmp_path}", "native.template=phi4") == []


BROKEN = {  # a file of a model's folder, its text, and what is said of it
    "unparsable": ("config.json", "{", "not valid JSON"),
    "a list": ("config.json", "[]", "must be an object, not a list"),
    "text for a size": ("config.json", '{"max_position_embeddings": "4096"}', "must be a number, not '4096'"),
    "text for a part": ("config.json", '{"text_config": "x"}', "text_config must be an object, not 'x'"),
    "an unparsable tokenizer": ("tokenizer_config.json", "x", "not valid JSON"),
    "not UTF-8": ("tokenizer_config.json", '{"x": "\xe9"}', "cannot be read: 'utf-8' codec"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_models_file_that_cannot_be_read_is_one_line(tmp_path: Path, case: str) -> None:
    file, text, message = BROKEN[case]
    (tmp_path / "config.json").write_text('{"text_config": null}')
    (tmp_path / file).write_text(text, encoding="latin-1")
    pairs = ("train.max_length=512", "native.template=null") if file == "config.json" else ()
    lines = [line for line in _faults("min_o1/sft_short", f"model={tmp_path}", *pairs) if message in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path / file}: ")


@pytest.mark.parametrize(("method", "refused"), [("awq", True), ("mxfp4", False)])
def test_quantised_weights_are_refused_where_the_trainer_cannot_turn_them_into_bf16(
    tmp_path: Path, method: str, refused: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    lines = _faults("min_o1/sft_short", f"model={tmp_path}", "native.template=qwen")
    assert any(f"are quantised ({method}): use bf16 weights" in line for line in lines) is refused


def test_torchtune_names_the_sizes_that_a_config_has_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    faults = _faults("skill_mix/sft_gold", f"model={tmp_path}")
    assert any("its config.json has no intermediate_size, max_position_embeddings, num_att" in line for line in faults)


def test_of_several_chat_templates_the_default_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    named = [{"name": "tool_use", "template": "<|im_start|>"}, {"name": "default", "template": "[INST]"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert models.template(str(tmp_path)) == "mistral"


# What the templates of local models hold (microsoft/phi-4, Llama-2, Mistral-Nemo, Mistral-7B v0.3, GLM-4, R1-Distill).
MARKS = {
    "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}": "phi4",
    "{{ bos_token + '[INST] ' + '<<SYS>>\n' + content }}": "llama2",
    '{{- "[INST]" + message["content"] + "[/INST]" }}': "ministral",
    '{{- "[INST] " + message["content"] + "[/INST]" }}': "mistral",
    "[gMASK]<sop>{% for item in messages %}<|user|>": "glm4",
    "{{'<｜Assistant｜><think>\\n'}}": "deepseekr1",
}


@pytest.mark.parametrize("text", MARKS)
def test_a_local_models_template_is_known_by_its_marks(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text(text)
    assert models.template(str(tmp_path)) == MARKS[text]


def test_a_cached_hub_models_own_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--acme--odd-7b"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
             "vocab_size": 300, "max_position_embeddings": 256}  # fmt: skip
    (snapshot / "config.json").write_text(json.dumps(sizes))
    (snapshot / "tokenizer_config.json").write_text('{"chat_template": "<|im_start|>"}')
    (fault,) = _faults("min_o1/sft_short", "model=acme/odd-7b", "train.max_length=1024")
    assert "256 positions of 'acme/odd-7b'" in fault
    assert model_sizes("acme/odd-7b") is not None
    assert model_sizes("acme/odd-8b") is None


@pytest.mark.parametrize(
    ("key", "value", "replaced"),
    [
        ("revision", "abc123", "model=Qwen/Qwen2.5-1.5B"),
        ("native.template", "chatml", "model=Qwen/Qwen2.5-1.5B"),
        ("native.batch_size", "4", "trainer=torchtune"),
        ("reward.params", "{x: 1}", "reward.name=other"),
    ],
)
def test_what_is_given_stays_whichever_option_comes_first(key: str, value: str, replaced: str) -> None:
    for pairs in ((f"{key}={value}", replaced), (replaced, f"{key}={value}")):
        overrides = Overrides(None, tuple(compose.parse_settings(("reward.name=math", *pairs))))
        kept = compose.resolve("min_o1/grpo", overrides).tree.at(tuple(key.split(".")))
        assert kept is not None
        assert kept.where == f"--set {key}"


PIN = """
import sys
from pathlib import Path
from launchers import cli
from launchers.run import directory
given = cli.overrides(None, [f"model={sys.argv[2]}", *sys.argv[3:]], False)
run = cli.locate("min_o1/sft_short", given, Path(sys.argv[1]))
print(directory.pinned(run).path)
"""


def _pinned(repo: Repo, hub: str, out: Path, model: str, *pairs: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(repo.python), "-c", PIN, str(out), model, *pairs], cwd=repo.path, capture_output=True, text=True,
        env={**repo.environ(), "HF_ENDPOINT": hub, "HF_HOME": str(out.parent / "hub")},
    )  # fmt: skip


def test_a_hub_model_is_held_at_the_commit_of_the_first_contact(repo: Repo, hub: str, tmp_path: Path) -> None:
    line = ("min_o1/sft_short", "--out", str(tmp_path / "runs"), "--set", "model=Qwen/Qwen2.5-1.5B", "--set")
    line = (*line, "train.max_length=1024")
    assert "Qwen/Qwen2.5-1.5B has no revision" in repo.launch("plan", *line).stdout
    run = Path(_pinned(repo, hub, tmp_path / "runs", "Qwen/Qwen2.5-1.5B", "train.max_length=1024").stdout.strip())
    assert json.loads((run / "run.json").read_text())["revision"] == COMMIT
    assert "has no revision" not in repo.launch("plan", *line).stdout
    assert repo.launch("render", *line).stdout.strip() == str(run)
    assert f'model_revision: "{COMMIT}"' in (run / "train" / "llamafactory.yaml").read_text()


def test_a_model_that_the_hub_has_not_is_said(repo: Repo, hub: str, tmp_path: Path) -> None:
    done = _pinned(repo, hub, tmp_path / "runs", "Qwen/Qwen2.5-1.6B")
    assert "the Hub has no model 'Qwen/Qwen2.5-1.6B'" in done.stderr


def test_a_model_is_checked_against_its_own_files_at_the_first_contact(repo: Repo, hub: str, tmp_path: Path) -> None:
    done = _pinned(repo, hub, tmp_path / "runs", "Qwen/Qwen2.5-1.5B", "train.max_length=4096")
    assert "4096 tokens exceed the 1024 positions of 'Qwen/Qwen2.5-1.5B'" in done.stderr


def test_a_revision_that_the_hub_has_not_is_said(repo: Repo, hub: str, tmp_path: Path) -> None:
    done = _pinned(repo, hub, tmp_path / "runs", "Qwen/Qwen2.5-1.5B", "revision=abc")
    assert "revision: 'Qwen/Qwen2.5-1.5B' has no revision 'abc' on the Hub" in done.stderr


def test_a_revision_of_another_model_names_both(tmp_path: Path) -> None:
    (fault,) = _faults("min_o1/sft_short", "model=Qwen/Qwen2.5-7B", f"revision={COMMIT}")
    assert "is a revision of 'Qwen/Qwen2.5-Math-1.5B', not of 'Qwen/Qwen2.5-7B'" in fault
    (tmp_path / "config.json").write_text("{}")
    (fault,) = _faults("min_o1/sft_short", f"model={tmp_path}", "revision=abc", "native.template=qwen")
    assert f"applies to Hub models only, and {str(tmp_path)!r} is a local folder" in fault


def test_a_misspelt_make_variable_is_one_line(repo: Repo) -> None:
    done = repo.make("show/min_o1/sft_short", "MODLE=/x", "HF_HUB_OFFLINE=1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "MODLE: no such variable; known: SCALE MODEL" in line
    assert "HF_HUB_OFFLINE" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("min_o1/sft_short", "DRY_RUN=1"), "DRY_RUN: min_o1/sft_short does not read it"),
        (("plan/min_o1/sft_short", "STEP=load"), "STEP: plan/min_o1/sft_short does not read it"),
        (("sbatch/min_o1/sft_short", "FRESH=1"), "FRESH: sbatch/min_o1/sft_short does not read it"),
        (("sweep/min_o1/sft_short", "GRID=seed='1"), "GRID=: cannot be split into key=value words"),
    ],
)
def test_a_make_variable_that_a_target_does_not_read_is_refused(repo: Repo, words: tuple[str, str], said: str) -> None:
    done = repo.make(*words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[0]


@pytest.mark.parametrize("name", ["my rows #1.jsonl", "a=b.jsonl", "c 'd' $e.jsonl"])
def test_make_and_set_take_any_path(repo: Repo, name: str, tmp_path: Path) -> None:
    rows = tmp_path / name
    rows.write_text('{"prompt": "1+1=?", "completion": "2", "answer": "2"}\n')
    for done in (
        repo.make("show/min_o1/sft_short", "SCALE=mini", f"DATA={rows}"),
        repo.launch("show", "min_o1/sft_short", "--scale", "mini", "--set", f"data={rows}"),
    ):
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
