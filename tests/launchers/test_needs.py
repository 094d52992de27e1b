"""What steps still to be done lack (API keys, a sandbox, a token for the Hub) is told at once, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.core.pipeline import Spec, StepSpec, run
from data_prep.sources import tasks
from launchers.checks import requirements
from tests.conftest import Repo
from tests.fakes.openai_server import Finish, OpenAIServer

RECIPE = (
    "extends: [../min_o1/_sft.yaml]\ndata: mine\nhardware: cpu\nnative: {template: qwen, deepspeed: null}\n"
    "train: {global_batch: 4, micro_batch: 4, learning_rate: 1e-5, epochs: 3, max_length: 2048}\n"
)
PROGRAMS: requirements.Requirement = ("programs", "")
NOWHERE = "http://127.0.0.1:9"  # the port discard, where nobody listens
KEYLESS = "api_key_env: environment variable NO_SUCH_KEY contains no key: set it, or write one key per line"
TOKENLESS = (
    "task 'gpqa_diamond' is gated and there is no token: accept its terms at "
    "https://huggingface.co/datasets/Idavidrein/gpqa and set HF_TOKEN, or give a local file in paths"
)


def _repo(repo: Repo, steps: str, evaluated: str = "tasks: [gpqa_diamond]") -> Repo:
    rows = [{"id": str(n), "prompt": f"{n}+1?", "completion": "so 2", "answer": "2"} for n in range(4)]
    repo.write("recipes/x/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    repo.write("recipes/x/y.yaml", RECIPE + f"eval: {{{evaluated}}}\n")
    repo.write("recipes/x/data.yaml", f"mine:\n  - load: {{path: rows.jsonl}}\n{steps}")
    return repo


def _told(repo: Repo, part: str, **environ: str) -> list[str]:
    """The lines of a part that is refused."""
    bare = {"HF_TOKEN": "", "HF_HOME": str(repo.path / "hub"), "ALLOW": "oom", **environ}
    done = repo.launch(part, "x/y", **bare)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()


def test_all_that_is_lacking_is_told_at_once_and_nothing_is_started(repo: Repo) -> None:
    steps = (
        f"  - label: {{model: m, base_url: '{NOWHERE}', api_key_env: NO_SUCH_KEY}}\n"
        f"  - rewrite: {{format: sky_t1, model: m, base_url: '{NOWHERE}', api_key_env: ./keys.txt}}\n"
        "  - decontaminate: {against: [gpqa_diamond]}\n"
    )
    _repo(repo, steps)
    repo.write("recipes/x/keys.txt", "sk-höchst-geheim\n")
    told = _told(repo, "run")
    data = "error: recipes/x/y.yaml:2: mine: step"
    assert told[:3] == [
        f"{data} 'label': {KEYLESS}",
        f"{data} 'rewrite': api_key_env: {repo.path}/recipes/x/keys.txt contains an invalid key: "
        "keys are printable ASCII",
        f"{data} 'decontaminate': {TOKENLESS}",
    ]
    assert len(told) == 3, "the evaluation needs the same token"
    assert "geheim" not in "".join(told)
    assert not list(repo.path.glob(".cache/steps/*"))
    assert not list(repo.path.glob("runs/x/y/*/logs"))


def test_only_the_parts_that_are_asked_for_count(repo: Repo) -> None:
    _repo(repo, "  - score: {reward: math}\n")
    assert _told(repo, "run") == [f"error: recipes/x/y.yaml:6: eval-after: step 'load': {TOKENLESS}"]
    made = repo.launch("data", "x/y", HF_TOKEN="", HF_HOME=str(repo.path / "hub"))
    assert made.returncode == 0, made.stderr


def test_what_is_done_needs_no_key_any_more(repo: Repo) -> None:
    with OpenAIServer(lambda request: Finish(content='{"difficulty": 4}')) as server:
        _repo(repo, f"  - label: {{model: m, base_url: '{server.url}', api_key_env: NO_SUCH_KEY}}\n")
        assert _told(repo, "data") == [f"error: recipes/x/y.yaml:2: mine: step 'label': {KEYLESS}"]
        done = repo.launch("data", "x/y", NO_SUCH_KEY="sk-1")
        assert done.returncode == 0, done.stderr
    again = repo.launch("data", "x/y")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("evaluated", "environ"),
    [
        ("tasks: [gpqa_diamond]", {"HF_TOKEN": "hf_x"}),
        ("tasks: [gpqa_diamond], paths: {gpqa_diamond: rows.jsonl}", {}),
        ("tasks: [math500]", {}),
    ],
)
def test_a_gated_task_needs_a_token_unless_a_file_stands_in(
    repo: Repo, evaluated: str, environ: dict[str, str]
) -> None:
    lacking = f"  - label: {{model: m, base_url: '{NOWHERE}', api_key_env: NO_SUCH_KEY}}\n"  # so that nothing starts
    assert len(_told(_repo(repo, lacking, evaluated), "run", **environ)) == 1


def test_the_hubs_own_file_of_the_token_will_do(repo: Repo) -> None:
    lacking = f"  - label: {{model: m, base_url: '{NOWHERE}', api_key_env: NO_SUCH_KEY}}\n"
    _repo(repo, lacking)
    assert len(_told(repo, "run")) == 2
    repo.write("hub/token", "hf_x\n")
    assert len(_told(repo, "run")) == 1


def test_what_the_hubs_cache_holds_is_not_fetched_again(repo: Repo) -> None:
    hub = tasks.read("gpqa_diamond").hub
    assert hub is not None
    _repo(repo, f"  - label: {{model: m, base_url: '{NOWHERE}', api_key_env: NO_SUCH_KEY}}\n")
    repo.write(f"hub/hub/datasets--Idavidrein--gpqa/snapshots/{hub.revision}/README.md", "")
    assert len(_told(repo, "run")) == 1


def test_what_stands_before_a_model_still_to_be_trained_is_known_to_stand(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "prompt": "1+1?", "answer": "2"}\n')
    generate = {"model": "/no/such/model", "n": 1}
    steps = (
        StepSpec(name="load", kind="load", params={"path": "rows.jsonl"}),
        StepSpec(name="generate", kind="generate", params=generate, inputs=("load",)),
        StepSpec(name="score", kind="score", params={"reward": "math"}, inputs=("generate",)),
    )
    spec = Spec(name="eval", base=tmp_path, cache=tmp_path / "steps", steps=steps, max_drop_share=0.05)
    assert requirements._done(spec) == set()
    run(spec.model_copy(update={"steps": steps[:1]}))
    assert requirements._done(spec) == {"load"}


def test_programs_are_tried_where_they_will_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert requirements.problem(PROGRAMS, tmp_path) is None
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    assert "run `python3 -m launchers.envs sandbox`" in str(requirements.problem(PROGRAMS, tmp_path))


def test_a_reward_made_of_others_runs_the_programs_of_its_parts() -> None:
    parts = [{"reward": "format", "params": {"boxed": True}}, {"reward": "code"}]
    step = StepSpec(name="s", kind="score", params={"reward": "combine", "params": {"parts": parts}})
    assert list(requirements._requirements(step)) == [PROGRAMS]
    gold = StepSpec(name="s", kind="gold", params={"check": True})
    assert list(requirements._requirements(gold)) == [PROGRAMS]
    assert list(requirements._requirements(gold.model_copy(update={"params": {}}))) == []
