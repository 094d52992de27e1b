"""vLLM in this process: chat prompts in, samples out, the same for the same seed whatever was run before.

Every prompt carries its own seed, made from the step's seed and the row's id, and the prefix cache is emptied
between batches: what a batch yields depends on nothing but the batch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from data_prep.core.step import Drop, Row
from data_prep.errors import DataError
from data_prep.inference.models import Model, check_hub
from data_prep.inference.sampling import Sample, Sampling, prompt_seed
from data_prep.inference.vllm.settings import EngineOptions, engine_args, environ, this_device


class Offline:
    """An engine, its tokenizer and the limits that prompts are held against."""

    def __init__(self, model: Model, options: EngineOptions, chat: dict[str, Any]) -> None:
        """Load the model. Raises DataError, in one line, for what vLLM would tell in pages."""
        device = this_device()
        check_hub(model)
        os.environ.update(environ(model, device))
        if device == "cpu":
            _inspect_in_process()
        warnings.filterwarnings("ignore", category=FutureWarning)  # vLLM's and torch's, for their authors
        from vllm import LLM

        try:
            self._llm = LLM(
                **engine_args(model, options, device),
                seed=0,
                disable_log_stats=True,
                use_tqdm_on_load=False,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise DataError(f"model {model.name!r}: vLLM cannot start it: {first_line(error)}") from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._limit = int(self._llm.llm_engine.model_config.max_model_len)
        self._chat = chat
        if self._tokenizer.chat_template is None:
            raise DataError(
                f"model {model.name!r}: its tokenizer has no chat template, so it cannot be asked in messages"
            )

    def generate(self, rows: Sequence[Row], sampling: Sampling) -> list[list[Sample] | Drop]:
        """For each row its n samples, or why there are none."""
        from vllm import SamplingParams

        results: list[list[Sample] | Drop] = []
        prompts: list[Any] = []
        params: list[Any] = []
        places: list[int] = []
        for place, row in enumerate(rows):
            ids = self._encode(row)
            if isinstance(ids, Drop):
                results.append(ids)
                continue
            results.append([])
            places.append(place)
            prompts.append({"prompt_token_ids": ids})
            params.append(
                SamplingParams(
                    n=sampling.n,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                    max_tokens=min(sampling.max_tokens, self._limit - len(ids)),
                    stop=list(sampling.stop),
                    seed=prompt_seed(sampling.seed, str(row["id"])),
                )
            )
        if prompts:
            self._llm.reset_prefix_cache()
            for place, output in zip(places, self._llm.generate(prompts, params, use_tqdm=False), strict=True):
                results[place] = [
                    Sample(one.text, str(one.finish_reason), len(one.token_ids)) for one in output.outputs
                ]
        return results

    def _encode(self, row: Row) -> list[int] | Drop:
        from jinja2 import TemplateError

        try:
            ids = self._tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=True, **self._chat
            )["input_ids"]
        except TemplateError as error:
            return Drop("chat_template", str(row["id"]), first_line(error), bad=True)
        if len(ids) >= self._limit:
            detail = f"{len(ids):,} tokens; the model takes {self._limit:,} with the completion"
            return Drop("prompt_too_long", str(row["id"]), detail, bad=True)
        return list(ids)


def first_line(error: BaseException) -> str:
    """What an exception says, without its type's and its library's lines around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        lines = lines[1:]
    return lines[0][:300] if lines else type(error).__name__


def _inspect_in_process() -> None:
    """Spare a second import of vLLM on the first run with an architecture.

    vLLM looks at a model class in a child process, so as not to start CUDA in its own; a CPU has none.
    """
    from vllm.model_executor.models import registry

    if hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = lambda function: function()
