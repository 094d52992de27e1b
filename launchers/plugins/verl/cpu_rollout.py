"""A verl rollout engine that uses transformers on a CPU (`rollout.name=transformers`), if vLLM needs too much memory.

One Ray actor per trainer rank holds a copy of the policy and decodes all waiting requests as one batch (decoding.py).
It implements verl's interface: token ids in, token ids and log-probabilities out, weights pushed by the trainer after
each update. If a batch fails, all its requests fail; if the actor dies, the run fails.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from torch import Tensor

from launchers.plugins.verl.decoding import Completion, Request, decode, seed_of
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

QUIET_S = 0.03  # verl's agent loops send requests one by one: a batch starts after this pause
MOST_AT_ONCE = 512  # maximum batch size; bounds the memory of the KV cache
KNOWN = {"temperature", "top_p", "top_k", "max_tokens", "max_new_tokens", "logprobs", "seed", "stop", "stop_token_ids"}
NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "n": 1, "ignore_eos": False,
           "include_stop_str_in_output": True}  # fmt: skip


@dataclass(frozen=True)
class Waiting:
    request: Request
    answer: asyncio.Future[Completion]


async def _nothing(self: Any, *_: Any, **__: Any) -> None:
    """No-op: there is no GPU memory to release, and nothing runs between steps."""


class TransformersServer:
    """The Ray actor. Requests are queued on its event loop and decoded in a thread, one batch at a time."""

    def __init__(self, config: Any, model_path: str, replica_rank: int) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from launchers.plugins import own_template

        torch.set_num_threads(int(os.environ.get("POSTTRAIN_ROLLOUT_THREADS", "1")))
        self.config, self.replica_rank = config, replica_rank
        # The trainer pushes the weights before the first request, as with verl's load_format=dummy.
        self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path)).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)
        self.stop = own_template.vocabulary(self.tokenizer, model_path, None).ends
        self.version: int | None = None
        self.loaded = False
        self.requested: Counter[tuple[int, ...]] = Counter()
        self.waiting: list[Waiting] = []
        self.worker: asyncio.Task[None] | None = None

    # Called by the trainer

    async def update_weights(self, weights: Mapping[str, Tensor], version: int | None) -> None:
        """Replace every parameter. Raises RuntimeError if one is missing, unknown or of another shape."""
        if self.waiting or (self.worker and not self.worker.done()):
            raise RuntimeError("weights were pushed while completions were being sampled")
        missing, unknown = self.model.load_state_dict(dict(weights), strict=False)
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        if unknown or set(missing) - tied:
            raise RuntimeError(f"weights do not fit the model: missing {sorted(missing)[:3]}, unknown {unknown[:3]}")
        self.loaded = True
        if version is not None:
            await self.set_global_steps(version)

    async def set_global_steps(self, global_steps: int | None) -> None:
        self.version = global_steps
        self.requested.clear()

    # Called by the agent loops

    async def generate(
        self, prompt_ids: list[int], sampling_params: Mapping[str, Any], request_id: str, **unused: Any
    ) -> TokenOutput:
        if not self.loaded:
            raise RuntimeError("a completion was requested before the first weights were pushed")
        if media := [name for name in ("image_data", "video_data", "audio_data") if unused.get(name) is not None]:
            raise ValueError(f"transformers rollouts support text only, not {media}; use rollout.name=vllm")
        waiting = Waiting(self.request(tuple(prompt_ids), sampling_params), asyncio.get_running_loop().create_future())
        self.waiting.append(waiting)
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        done = await waiting.answer
        return TokenOutput(
            token_ids=done.tokens,
            log_probs=done.log_probs if sampling_params.get("logprobs") else None,
            stop_reason="completed",  # verl's vLLM server reports this for both stop and length
            num_preempted=0,
            extra_fields={"global_steps": self.version},
        )

    def request(self, prompt: tuple[int, ...], params: Mapping[str, Any]) -> Request:
        """A request from vLLM's sampling parameters. Raises ValueError for unsupported ones."""
        unsupported = {k: v for k, v in params.items() if k not in KNOWN and (k not in NEUTRAL or v != NEUTRAL[k])}
        if unsupported:
            raise ValueError(f"transformers rollouts do not support {unsupported}; use rollout.name=vllm")
        room = self.config.prompt_length + self.config.response_length - len(prompt)
        tokens = params.get("max_tokens") or params.get("max_new_tokens") or min(self.config.response_length, room)
        self.requested[prompt] += 1  # a different seed for each completion of a prompt
        seed = seed_of(self.config.seed, self.replica_rank, self.version, prompt, self.requested[prompt])
        return Request(
            prompt=prompt,
            max_tokens=int(tokens),
            temperature=float(params.get("temperature", 1.0)),
            top_k=int(params.get("top_k", -1)),
            top_p=float(params.get("top_p", 1.0)),
            seed=seed if params.get("seed") is None else seed_of(params["seed"], prompt, self.requested[prompt]),
            stop=(frozenset() if self.config.ignore_eos else self.stop) | frozenset(params.get("stop_token_ids") or ()),
            ends=self._at_text(params["stop"]) if params.get("stop") else None,
        )

    def _at_text(self, stop: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        """A function that checks whether a completion's last token completed one of these texts."""
        longest = max(len(text.encode()) for text in stop)  # tokens: each has at least one byte
        return lambda tokens: any(text in self.tokenizer.decode(tokens[-longest:]) for text in stop)

    async def _work(self) -> None:
        batch: list[Waiting] = []
        try:
            while self.waiting:
                await self._quiet()
                batch, self.waiting = self.waiting[:MOST_AT_ONCE], self.waiting[MOST_AT_ONCE:]
                decoded = await asyncio.to_thread(decode, self.model, [waiting.request for waiting in batch])
                for waiting, completion in zip(batch, decoded, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(completion)
        except BaseException as error:  # nothing awaits this task: pass its error to every waiting request
            for waiting in [*batch, *self.waiting]:
                if not waiting.answer.done():
                    waiting.answer.set_exception(RuntimeError(f"sampling failed: {type(error).__name__}: {error}"))
            self.waiting = []
            raise

    async def _quiet(self) -> None:
        """Return when no request has arrived for QUIET_S."""
        count = -1
        while count != len(self.waiting):
            count = len(self.waiting)
            await asyncio.sleep(QUIET_S)

    # The rest of verl's interface

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    resume_generation = start_profile = stop_profile = _nothing

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        if self.waiting or (self.worker and not self.worker.done()):
            raise RuntimeError("transformers rollouts cannot be interrupted; use the synchronous trainer")
        return {}


def server_name(replica_rank: int) -> str:
    return f"transformers_server_{replica_rank}_0"


class TransformersAdapter(BaseRollout):
    """The trainer worker's side: pushes its weights to the server of its rank."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank

    resume = release = _nothing

    async def update_weights(
        self, weights: Iterator[tuple[str, Tensor]], wire_format: str = "named_tensors",
        global_steps: int | None = None, **_: Any,
    ) -> None:  # fmt: skip
        if wire_format != "named_tensors":
            raise ValueError(f"transformers rollouts need wire format named_tensors, not {wire_format}")
        # Iterating gathers shards from all ranks, so every rank must exhaust the generator.
        state = {name: tensor.detach().clone() for name, tensor in weights}
        await ray.get_actor(server_name(self.replica_rank)).update_weights.remote(state, global_steps)


class TransformersReplica(RolloutReplica):
    """Starts the server of one trainer rank."""

    async def launch_servers(self) -> None:
        if self.world_size != 1:
            raise ValueError("transformers rollouts need tensor, data and pipeline parallel sizes of 1")
        if self.is_reward_model or self.is_teacher_model:
            raise ValueError("transformers rollouts serve the policy only; serve other models with vLLM")
        actor = ray.remote(TransformersServer).options(
            name=server_name(self.replica_rank), num_cpus=0, max_concurrency=self.max_concurrency
        )
        server = actor.remote(config=self.config, model_path=self.model_config.path, replica_rank=self.replica_rank)
        await server.set_global_steps.remote(None)  # fails if the model cannot be built
        self.servers = [server]
        self._server_handle, self._server_address = server, server_name(self.replica_rank)
