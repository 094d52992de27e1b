r"""Sets a reasoning model's free text out as thought and solution, in the format that will be trained on.

- rewrite: {format: sky_t1}                                                 what the text itself shows; else a drop
- rewrite: {format: sky_t1, model: gpt-4o-mini, base_url: …, api_key_env: KEY}     a model writes the others
- rewrite: {format: sky_t1, model: Qwen/Qwen2.5-7B-Instruct}                       the same, served here by vLLM

`explained: 20` asks of a solution that a boundary shows for 20 words besides its heading and box, so that a bare
"**Final Answer** \boxed{42}" does not teach that form of answer; a program is its own explanation.

A model's rewriting is used only if it ended by itself, holds the format's marks once and in order, and keeps the
thought: its length within `shortest` to `longest` of the original's, and at least `verbatim` of its characters in the
original in the same order. It is asked `tries` times. `score` comes after this step: what is graded is what is
trained on.
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

NO_BOUNDARY, BARE = "no boundary between thought and solution", "solution without explanation"  # a model may help
OF_THE_SAMPLE = ("tokens", "score_details", "reasoning")  # fields of meta that are of the text as it was


class RewriteParams(RepeatedParams):
    """format: a thinking format by name; the rest is for the model that sets out what shows no boundary."""

    format: Annotated[str, checked(known_format)] = "sky_t1"
    explained: int = Field(0, ge=0)  # words that a boundary's solution must have besides its heading and box
    system: tasks.PromptName = None  # a file of templates/prompts, in place of the sampler's system message
    model: str = ""
    max_tokens: int = Field(16_384, ge=1)
    shortest: float = Field(0.6, ge=0, le=1)  # the thought's length, as shares of the whole text's
    longest: float = Field(1.05, ge=1)
    verbatim: float = Field(0.9, ge=0, le=1)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.base_url is not None and not self.model:
            raise ValueError("base_url: say which model rewrites there; without one, only boundaries are used")
        return self


class Rewrite(EndpointStep[RewriteParams]):
    """Samples in, samples in the format out; what cannot be set out is a drop with its reason."""

    kind = "rewrite"
    present: ClassVar[tuple[str, ...]] = ("completion",)
    packages: ClassVar[tuple[str, ...]] = ("rapidfuzz",)
    growth = 4.0

    def env(self) -> str:
        return self.params.env if self.params.model else "core"

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The prompts; an endpoint's model is known by its name only."""
        asked = self.params.identity(base) if self.params.model else {}
        return {"prompts": prompts.content_hash("rewrite"), "system": prompt_hash(self.params.system), **asked}

    def tally(self, row: Row) -> str:
        return f"set out by {row['meta']['rewritten_by']}"

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Make the client, once for all shards, where a model is asked."""
        with endpoint(self.params, ctx) if self.params.model else nullcontext() as asker:
            yield lambda rows, shard: self._rewritten(rows, asker)

    def _rewritten(self, rows: Sequence[Row], asker: ChatClient | None) -> Output:
        form = thinking(self.params.format)
        outputs = {at: self._by_boundary(row, form) for at, row in enumerate(rows)}
        if asker is not None:
            drops = {at: made.reason for at, made in outputs.items() if isinstance(made, Drop)}
            todo = [at for at, reason in drops.items() if reason in (NO_BOUNDARY, BARE)]
            outputs |= self._by_model(rows, todo, form, asker)
            refuse_failures(list(outputs.values()), len(rows), self.params, "rows had no reply")
        return list(outputs.values())

    def _by_boundary(self, row: Row, form: Thinking) -> Row | Drop:
        """The row set out, or why its text alone does not allow it."""
        if not row["completion"].strip():
            return Drop("empty completion", row["id"])
        if cut_short(row):
            return Drop("truncated sample", row["id"])
        code = "tests" in row
        thought = row.get("meta", {}).get("reasoning")  # an endpoint has set it out already
        parts = Parts(thought, row["completion"]) if thought else split(row["completion"], code, self.params.shortest)
        if parts is None:
            return Drop(NO_BOUNDARY, row["id"])
        if not code and (count := words(explanation(parts.solution))) < self.params.explained:
            return Drop(BARE, row["id"], f"{count} words besides heading and box")
        try:
            return self._with(row, form.render(*parts), "boundary")
        except rewards.RewardError as problem:
            return Drop("marks inside the text", row["id"], str(problem))

    def _by_model(
        self, rows: Sequence[Row], todo: list[int], form: Thinking, asker: ChatClient
    ) -> dict[int, Row | Drop]:
        refused: dict[int, Drop] = {}

        def read(at: int, sample: Sample) -> Row | None:
            made = self._judged(rows[at], sample, form)
            if not isinstance(made, Drop):
                return made
            refused[at] = made
            return None

        ids = {at: str(rows[at]["id"]) for at in todo}
        made, failed = self.params.ask(asker, ids, lambda at: self._message(rows[at], form), read)
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
            return Drop("rewriting: thought changed", row["id"], f"{kept:.2f} of it stands in the original")
        return self._with(row, form.render(parsed.thought, parsed.answer), "model")

    def _with(self, row: Row, text: str, by: str) -> Row:
        meta = without(row.get("meta", {}), OF_THE_SAMPLE)
        done = {**row, "completion": text, "meta": {**meta, "rewritten_by": by}}
        if system := prompts.head(self.params.system):
            done["prompt"] = [message for message in row["prompt"] if message["role"] != "system"]
            prompts.put(done, system)
        return done
