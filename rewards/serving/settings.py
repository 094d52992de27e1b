"""Settings of the reward server, each an option of `python -m rewards serve`, and types that verl's adapter shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rewards.base import FailureLimit, Outcome
from rewards.params import RewardParams

Count = Annotated[int, Field(ge=1, le=1 << 24)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.01, le=86400.0)]


class ServerSettings(RewardParams):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0: a free one")
    workers: Count = Field(4, description="requests graded at once")
    queue: int = Field(256, ge=0, le=1 << 24, description="requests that may wait to be graded; more get 503")
    connections: Count = Field(512, description="open connections; more get 503")
    max_body_mb: Count = Field(64, description="MiB of one request; larger ones get 413")
    max_bodies_mb: Count = Field(256, description="MiB of all requests at once; more get 503")
    max_completions: Count = Field(4096, description="completions of one request; more get 413")
    timeout: Seconds = Field(600.0, description="seconds to wait and be graded; then 504")
    read_timeout: Seconds = Field(60.0, description="seconds to send a request or take an answer; then 408")
    grace: int = Field(30, ge=0, le=86400, description="seconds to finish requests after SIGTERM")
    max_errors: Share = Field(FailureLimit.error, description="failure limit: share of outcomes `error`")
    max_timeouts: Share = Field(FailureLimit.timeout, description="failure limit: share of outcomes `timeout`")
    values: dict[Outcome, float] = {}  # what /get_reward answers for an outcome, in place of the reward's value
