"""Generation: with real vLLM on CPU, killed and resumed; and with a scripted endpoint."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import making
import pytest
from pydantic import ValidationError

from data_prep.core import pipeline
from data_prep.core.manifest import Manifest, read_rows
from data_prep.core.step import Row
from data_prep.errors import DataError, LimitExceeded
from data_prep.inference.models import find_model
from data_prep.inference.sampling import Sample
from data_prep.steps.generate import Generate, GenerateParams, sample_rows
from tests.fakes.openai_server import Finish, OpenAIServer, Request, Status

REPO = Path(__file__).resolve().parents[2]


def question(i: int) -> Row:
    asked = [{"role": "user", "content": f"{i % 90 + 10}+{i % 70 + 20}=?"}]
    return {"id": f"p{i}", "prompt": asked, "answer": str(i), "source": "sums", "meta": {"level": 2}}


def make_spec(folder: Path, rows: list[Row], **params: Any) -> pipeline.Spec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [
        {"name": "load", "kind": "load", "params": {"path": "rows.jsonl"}},
        {"name": "generate", "kind": "generate", "params": params, "inputs": ["load"]},
    ]
    spec = {"name": "test", "base": str(folder), "cache": str(folder / "cache"), "steps": steps}
    (folder / "spec.json").write_text(json.dumps(spec))
    return pipeline.Spec.read(folder / "spec.json")


def start(python: Path, folder: Path) -> subprocess.Popen[str]:
    command = [str(python), "-m", "data_prep", "run", str(folder / "spec.json")]
    return subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def generated(folder: Path) -> Path:
    (found,) = (folder / "cache").glob("generate-*")
    return found


def hashes(folder: Path) -> dict[str, str]:
    shards = sorted((generated(folder) / "shards").glob("?????.jsonl"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}


def manifest(folder: Path) -> Manifest:
    found = pipeline.read_manifest(generated(folder))
    assert found is not None
    return found


def journal(folder: Path) -> Counter[str]:
    """Kinds of the journal's records."""
    lines = [
        line for path in (folder / "cache" / "replies").glob("*/*.jsonl") for line in path.read_bytes().splitlines()
    ]
    return Counter(next(iter(json.loads(line))) for line in lines)


@pytest.mark.full
def test_a_kill_costs_what_is_in_flight_and_replicas_make_the_same_bytes(
    mini_model: Path, vllm_python: Path, tmp_path: Path
) -> None:
    rows = [question(i) for i in range(700)]
    rows[5]["prompt"][0]["content"] = "1+" * 200 + "1=?"
    params = {"model": str(mini_model), "n": 2, "max_tokens": 300, "max_model_len": 256, "seed": 3}
    params |= {"engine": {"max_num_seqs": 64}, "sampling": {"min_tokens": 3}, "concurrency": 1}
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    make_spec(calm, rows, **params, replicas=2)
    make_spec(stormy, rows, **params)
    with start(vllm_python, stormy) as killed:
        while not (folder := stormy / "cache" / "replies").exists() or journal(stormy)["got"] < 200:
            assert killed.poll() is None, folder
            time.sleep(0.02)
        killed.kill()
    kept = journal(stormy)
    assert 200 <= kept["got"] < 699
    log = finish(start(vllm_python, calm))
    assert "Traceback" not in log
    finish(start(vllm_python, stormy))
    assert journal(stormy)["got"] == 699, "no answer that was on disk is asked for again"
    assert hashes(stormy) == hashes(calm)

    made = list(read_rows(generated(calm)))
    assert manifest(calm).drops == {"prompt_too_long": 1}
    assert [row["id"] for row in made] == [f"p{i}/{k}" for i in range(700) if i != 5 for k in (0, 1)]
    for row in made:
        meta = row["meta"]
        assert (meta["level"], row["source"], row["id"]) == (2, "sums", f"{meta['prompt_id']}/{meta['sample']}")
        assert 3 <= meta["tokens"] < 256
        assert meta["finish_reason"] in ("stop", "length")
    pairs = zip(made[::2], made[1::2], strict=True)
    assert any(first["completion"] != second["completion"] for first, second in pairs)


def test_engine_and_sampling_names_are_vllms(vllm_python: Path) -> None:
    command = [str(vllm_python), "-m", "data_prep.inference.vllm.dump_keys"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout[done.stdout.index("{") :]) == json.loads(
        (REPO / "configs" / "native" / "vllm.json").read_text()
    )


def test_a_base_model_needs_a_chat_template(mini_model: Path, vllm_python: Path, tmp_path: Path) -> None:
    base = making.base_model(mini_model, tmp_path)
    make_spec(tmp_path, [question(i) for i in range(4)], model=str(base), max_tokens=16)
    refused = start(vllm_python, tmp_path)
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2
    assert "its tokenizer has no chat template: set chat_template to a Jinja file" in output


def test_rows_keep_their_fields_except_those_of_a_completion() -> None:
    row = {**question(1), "completion": "old", "score": 1.0, "outcome": "scored"}
    made = list(sample_rows(row, [Sample("new", "stop", 4), Sample("long", "length", None)]))
    assert made[0] == {
        **question(1),
        "id": "p1/0",
        "completion": "new",
        "meta": {"level": 2, "prompt_id": "p1", "sample": 0, "finish_reason": "stop", "tokens": 4},
    }
    assert made[1]["meta"] == {"level": 2, "prompt_id": "p1", "sample": 1, "finish_reason": "length"}
    assert row["meta"] == {"level": 2}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 0.0, "n": 4}, "set n to 1"),
        ({"spend_cap": 3}, "'m' has no price"),
        ({"api_key_env": "KEY"}, "api_key_env applies to endpoints: set base_url"),
        ({"base_url": "http://x/v1", "replicas": 2}, "replicas applies to local servers"),
        ({"base_url": "x"}, "pattern"),
        ({"max_length": 3}, "Extra inputs"),
        ({"engine": "vllm"}, "must be a mapping of vLLM arguments"),
        ({"engine": {"max_num_seq": 4}}, r"engine.max_num_seq: unknown to vLLM .*; did you mean 'max_num_seqs'"),
        ({"engine": {"tensor_parallel_size": 2}}, "set the step's own parameter instead: tensor_parallel"),
        ({"sampling": {"minp": 0.1}}, "sampling.minp: .*did you mean 'min_p'"),
        ({"sampling": {"temperature": 0.1}}, "set the step's own parameter instead: temperature"),
    ],
)
def test_contradictory_parameters_are_rejected(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GenerateParams(model="m", **params)


def test_only_a_remote_endpoint_needs_no_vllm() -> None:
    assert Generate(GenerateParams(model="m")).env() == "vllm"
    assert Generate(GenerateParams(model="m", base_url="http://x/v1")).env() == "core"


def test_a_missing_model_is_a_one_line_error(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, [question(0)], model="./no/such")
    with pytest.raises(DataError, match=r"model '\./no/such' is neither a local folder nor a Hub id") as caught:
        pipeline.run(spec)
    assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config\.json in"):
        find_model("empty", None, tmp_path)


def test_a_hub_model_that_cannot_be_had_is_one_line_before_the_engine_starts(
    tmp_path: Path, vllm_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_spec(tmp_path, [question(0)], model="no-such-owner/no-such-model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = start(vllm_python, tmp_path)
    output, _ = started.communicate(timeout=120)
    assert started.returncode == 2
    assert "model 'no-such-owner/no-such-model' is neither a local folder nor in the local Hub cache" in output
    assert "Traceback" not in output


def test_a_model_is_identified_by_content(mini_model: Path, tmp_path: Path) -> None:
    def identity(folder: Path) -> dict[str, str]:
        return find_model(str(folder), None, tmp_path).identity()

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in mini_model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert identity(copy) == identity(mini_model)
    (copy / "README.md").write_text("another card")
    assert identity(copy) == identity(mini_model)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert identity(copy) != identity(mini_model)
    assert find_model("owner/name", "abc", tmp_path).identity() == {"hub": "owner/name@abc"}


def test_importing_the_step_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'vllm', 'openai', 'transformers', 'huggingface_hub', 'asyncio'} & set(sys.modules)"
    program = f"import sys, data_prep.steps.generate; print({heavy} or '')"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def endpoint_params(server: OpenAIServer, **more: Any) -> dict[str, Any]:
    return {"model": "m", "base_url": server.url, "n": 2, "seed": 1, **more}


def test_an_endpoint_gives_rows_and_drops_and_no_key_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TEST_KEY", "sk-very-secret")
    bad = question(7)["prompt"][0]["content"]

    def script(request: Request) -> Status | None:
        return Status(400, error={"message": f"refused {request.key}"}) if request.prompt == bad else None

    with OpenAIServer(script) as server:
        params = endpoint_params(server, api_key_env="MY_TEST_KEY", max_error_share=0.1)
        pipeline.run(make_spec(tmp_path, [question(i) for i in range(60)], **params))
        assert {request.key for request in server.requests} == {"sk-very-secret"}
    assert manifest(tmp_path).rows_out == 118
    assert manifest(tmp_path).drops == {"api_error: bad_request": 1}
    first = next(iter(read_rows(generated(tmp_path))))
    assert first["completion"].startswith("10+20=?|")
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"refused ***" in everything
    assert b"very-secret" not in everything


def test_a_filtered_sample_is_counted_and_the_others_are_kept(tmp_path: Path) -> None:
    def script(request: Request) -> Finish:
        return Finish(most=3, content=None) if request.body["n"] == 4 else Finish("content_filter")

    with OpenAIServer(script) as server:
        spec = make_spec(tmp_path, [question(0)], model="m", base_url=server.url, n=4)
        manifest = pipeline.run(spec)[-1]
    assert [row["id"] for row in read_rows(generated(tmp_path))] == ["p0/0", "p0/1", "p0/2"]
    assert manifest.drops == {"sample refused or filtered": 1}


def test_too_many_failures_abort_and_the_next_run_retries(tmp_path: Path) -> None:
    broken = True
    with OpenAIServer(lambda request: Status(400) if broken and request.number else None) as server:
        spec = make_spec(tmp_path, [question(i) for i in range(20)], **endpoint_params(server))
        with pytest.raises(LimitExceeded, match="19 of 20 prompts failed"):
            pipeline.run(spec)
        broken = False
        pipeline.run(spec)
    assert manifest(tmp_path).rows_out == 40
