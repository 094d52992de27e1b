"""Endpoint parameters: validation, and settings that must not change rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.core import pipeline
from data_prep.core.step import Context
from data_prep.inference.api.params import UNKEYED, EndpointParams, endpoint
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sampling
from data_prep.inference.vllm.settings import EngineOptions
from tests.fakes.openai_server import OpenAIServer

ANOTHER_WAY: dict[str, Any] = {
    "api_key_env": "./keys.txt", "concurrency": 3, "requests_per_minute": 5000, "tokens_per_minute": 10**6,
    "timeout": 9.0, "spend_cap": 5.0, "max_error_share": 0.5,
    "model_name": "exact",
}  # fmt: skip
WHAT_IS_ASKED = {"model", "provider", "rename", "omit", "extra_body"}
OF_A_SERVER_HERE = {"base_url", "revision", "sampling", *EngineOptions.model_fields}


def spec(folder: Path, url: str, **params: Any) -> pipeline.Spec:
    steps = (
        pipeline.StepSpec(name="load", kind="load", params={"path": "../rows.jsonl"}),
        pipeline.StepSpec(
            name="generate",
            kind="generate",
            params={"model": "gpt-4o-mini", "base_url": url, "n": 2, **params},
            inputs=("load",),
        ),
    )
    return pipeline.Spec(name="test", base=folder, cache=folder / "cache", steps=steps)


def test_request_settings_change_no_row_and_no_key(tmp_path: Path) -> None:
    assert set(ANOTHER_WAY) == set(UNKEYED) == set(EndpointParams.model_fields) - WHAT_IS_ASKED - OF_A_SERVER_HERE
    rows = ({"id": f"p{i}", "prompt": [{"role": "user", "content": f"q{i}"}]} for i in range(20))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with OpenAIServer() as server:
        made = []
        for name, params in (("one", {}), ("other", ANOTHER_WAY)):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "keys.txt").write_text("sk-1\nsk-2\nsk-1\n")
            made.append(pipeline.run(spec(folder, server.url, **params))[-1])
        assert {request.key for request in server.requests} == {"none", "sk-1", "sk-2"}
    assert made[0].sha256 == made[1].sha256
    assert made[0].key == made[1].key


def test_a_step_reuses_connections(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        params = EndpointParams(model="m", base_url=server.url, concurrency=1)
        with endpoint(params, Context(tmp_path, tmp_path)) as asker:
            for turn in range(5):
                asker.ask([Request([{"role": "user", "content": f"q{turn}"}], turn)], Sampling())
        assert len(server.requests) == 5
        assert server.connections == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"base_url": "localhost:8000"}, "pattern"),
        ({"api_key_env": "sk-secret"}, "the value is not shown"),
        ({"requests_per_minute": 0}, "greater than or equal to 1"),
        ({"spend_cap": 0}, "greater than 0"),
        ({"spend_cap": 1.0}, "has no price in configs/prices.yaml"),
        ({"timeout": -1}, "greater than 0"),
        ({"base_url": "http://x/v1/chat/completions/"}, "omit /chat/completions"),
        ({"base_url": ["http://x/v1", "http://y/v1/chat/completions"]}, "omit /chat/completions"),
        ({"base_url": []}, "at least 1 item"),
        ({"provider": "antropic"}, "no 'antropic' in configs/providers.yaml; did you mean 'anthropic'"),
        ({"omit": ["sed"]}, "'sed' is not one of n, temperature"),
        ({"rename": {"max_length": "x"}}, "'max_length' is not one of"),
        ({"extra_body": {"temperature": 1}}, "temperature is set by the step itself"),
        ({"model": "gpt-4o", "spend_cap": 1, "omit": ["max_tokens"]}, "spend_cap needs max_tokens"),
        ({"engine": {"max_num_seqs": 4}}, "engine applies to local servers"),
        ({"sampling": {"min_p": 0.1}}, "use extra_body, or remove sampling"),
    ],
)
def test_invalid_parameters_are_rejected(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        EndpointParams.model_validate({"model": "m", "base_url": "http://x/v1", **params})
    assert "sk-secret" not in str(caught.value)
