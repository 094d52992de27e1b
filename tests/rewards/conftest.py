"""Both isolation levels of the sandbox, for tests that hold on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rewards import RewardError
from rewards.sandbox import Sandbox


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    try:
        with Sandbox(request.param) as sandbox:
            yield sandbox
    except RewardError as problem:
        pytest.skip(str(problem))
