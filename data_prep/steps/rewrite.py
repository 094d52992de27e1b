r"""Rewrites a reasoning model's free text as thought and solution, in the training format.

- rewrite: {format: sky_t1}                                             split at a boundary in the text, else dropped
- rewrite: {format: sky_t1, model: gpt-4o-mini, base_url: …, api_key_env: KEY}     a model rewrites the others
- rewrite: {format: sky_t1, model: Qwen/Qwen2.5-7B-Instruct}                       the same with a local vLLM server

`explained: 20` requires that a solution after a boundary has 20 words besides its heading and box, so that
bare answers such as "**Final Answer** \boxed{42}" are not trained on; a program needs no explanation.

A model's rewriting is used only if it is not truncated, contains the format's tags once and in order, and preserves the
thought: its length is between `shortest` and `longest` times the original's, and at least the share `verbatim` of its
characters is in the original in the same order. Up to `tries` requests are made. Put `score` after this step, so that
the training text is what is graded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

import rewards
from data_prep.core.rows import without
from data_prep.core.step import Apply, Context, Drop, Output, Row
from data_prep.core.validation import checked
from data_prep.inference import prompts
from data_prep.inference.api.params import EndpointStep, RepeatedParams, endpoint, refuse_failures
from data_prep.inference.sampling import Sample
from data_prep.sources import tasks
from data_prep.sources.origins import prompt_hash
from data_prep.text.normalise import text_of
from data_prep.text.thoughts import Parts, explanation, known_format, split, words
from rewards.extract import cut_short
from rewards.thinking import Thinking, thinking

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient

NO_BOUNDARY, BARE = "no boundary between thought and solution", "solution without explanation"  # may be rewritten
OF_THE_SAMPLE = ("tokens", "score_details", "reasoning")  # meta fields that describe the original text


class RewriteParams(RepeatedParams):
    """format: a thinking format's name. The others are for the model that rewrites texts without a boundary."""

    format: Annotated[str, checked(known_format)] = "sky_t1"
    explained: int = Field(0, ge=0)  # minimum words of a solution after a boundary, without heading and box
    system: tasks.PromptName = None  # a file in templates/prompts that replaces the sampler's system message
    model: str = ""
    max_tokens: int = Field(16_384, ge=1)
    shortest: float = Field(0.6, ge=0, le=1)  # length of the thought relative to the original text
    longest: float = Field(1.05, ge=1)
    verbatim: float = Field(0.9, ge=0, le=1)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.base_url is not None and not self.model:
            raise ValueError("base_url needs model; without a model, texts are only split at boundaries")
        return self


class Rewrite(EndpointStep[RewriteParams]):
    """Rewrites samples in the format; those that cannot be rewritten are drops with a reason."""

    kind = "rewrite"
    present: ClassVar[tuple[str, ...]] = ("completion",)
    packages: ClassVar[tuple[str, ...]] = ("rapidfuzz",)
    growth = 4.0

    def env(self) -> str:
        return self.params.env if self.params.model else "core"

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The prompts and the model; for an endpoint only the model's name is known."""
        asked = self.params.identity(base) if self.params.model else {}
        return {"prompts": prompts.content_hash("rewrite"), "system": prompt_hash(self.params.system), **asked}

    def tally(self, row: Row) -> str:
        return f"rewritten by {row['meta']['rewritten_by']}"

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Open the client once for all shards, if there is a model."""
        with endpoint(self.params, ctx) if self.params.model else nullcontext() as client:
            yield lambda rows, shard: self._rewritten(rows, client)

    def _rewritten(self, rows: Sequence[Row], client: ChatClient | None) -> Output:
        form = thinking(self.params.format)
        outputs = {at: self._by_boundary(row, form) for at, row in enumerate(rows)}
        if client is not None:
            drops = {at: made.reason for at, made in outputs.items() if isinstance(made, Drop)}
            todo = [at for at, reason in drops.items() if reason in (NO_BOUNDARY, BARE)]
            outputs |= self._by_model(rows, todo, form, client)
            refuse_failures(list(outputs.values()), len(rows), self.params, "rows had no reply")
        return list(outputs.values())

    def _by_boundary(self, row: Row, form: Thinking) -> Row | Drop:
        """The row split at a boundary in its text, or why there is none."""
        if not row["completion"].strip():
            return Drop("empty completion", row["id"])
        if cut_short(row):
            return Drop("truncated sample", row["id"])
        code = "tests" in row
        thought = row.get("meta", {}).get("reasoning")  # already separated by an endpoint
        parts = Parts(thought, row["completion"]) if thought else split(row["completion"], code, self.params.shortest)
        if parts is None:
            return Drop(NO_BOUNDARY, row["id"])
        if not code and (count := words(explanation(parts.solution))) < self.params.explained:
            return Drop(BARE, row["id"], f"{count} words besides heading and box")
        try:
            return self._with(row, form.render(*parts), "boundary")
        except rewards.RewardError as problem:
            return Drop("tags inside the text", row["id"], str(problem))

    def _by_model(
        self, rows: Sequence[Row], todo: list[int], form: Thinking, client: ChatClient
    ) -> dict[int, Row | Drop]:
        refused: dict[int, Drop] = {}

        def read(at: int, sample: Sample) -> Row | None:
            made = self._judged(rows[at], sample, form)
            if not isinstance(made, Drop):
                return made
            refused[at] = made
            return None

        ids = {at: str(rows[at]["id"]) for at in todo}
        made, failed = self.params.ask(client, ids, lambda at: self._message(rows[at], form), read)
        return {**refused, **failed, **made}

    def _message(self, row: Row, form: Thinking) -> str:
        return prompts.render(
            "rewrite/rewrite",
            ending=prompts.render("rewrite/program" if "tests" in row else "rewrite/answer"),
            example=form.render("the thinking, word for word", "the solution"),
            question=text_of(row, ("prompt",)),
            text=row["completion"],
        )

    def _judged(self, row: Row, sample: Sample, form: Thinking) -> Row | Drop:
        from rapidfuzz.distance import LCSseq

        given, original = self.params, row["completion"].strip()
        if sample.finish_reason == "length":
            return Drop("rewriting truncated", row["id"])
        parsed = form.parse(form.prefill + sample.text.strip() if form.prefilled else sample.text.strip())
        if parsed.problems:
            return Drop(f"rewriting: {parsed.problems[0].replace('_', ' ')}", row["id"], ", ".join(parsed.problems))
        length = len(parsed.thought) / len(original)
        if not given.shortest <= length <= given.longest:
            return Drop("rewriting: length of the thought", row["id"], f"{length:.2f} of the original's")
        kept = LCSseq.similarity(parsed.thought, original) / max(1, len(parsed.thought))
        if kept < given.verbatim:
            return Drop("rewriting: thought changed", row["id"], f"{kept:.2f} of it is in the original")
        return self._with(row, form.render(parsed.thought, parsed.answer), "model")

    def _with(self, row: Row, text: str, by: str) -> Row:
        meta = without(row.get("meta", {}), OF_THE_SAMPLE)
        done = {**row, "completion": text, "meta": {**meta, "rewritten_by": by}}
        if system := prompts.head(self.params.system):
            done["prompt"] = [message for message in row["prompt"] if message["role"] != "system"]
            prompts.put(done, system)
        return done
