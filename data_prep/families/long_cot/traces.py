"""Plan-then-answer traces of a strong model, and training rows with or without the thought.

- request_traces: {}                     # asks for a tagged plan and answer; meta keeps the original prompt
- generate: {model: gemini-2.5-flash, base_url: …}
- traces: {format: think}                # rows with thought and answer in the training format
- traces: {format: none}                 # the same rows, answers only

The request (templates/prompts/long_cot/plan.j2) is not part of training rows. If the API returns a reasoning model's
thought separately (`meta.reasoning`), that is the plan.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.families.long_cot.prompts import MARKS
from data_prep.inference.prompts import content_hash, render
from rewards.errors import RewardError
from rewards.model.chat import CONTROL_MARK, without_end_token
from rewards.thinking import PRESETS, thinking

REQUEST = "long_cot/plan"  # below templates/prompts
ASKED = PRESETS["zero"]  # <think>…</think> <response>…</response>


class RequestTraces(Step):
    """Appends the request to the last user turn; `meta.prompt` keeps the training prompt."""

    kind = "request_traces"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    Params = Params  # the request is templates/prompts/long_cot/plan.j2

    def fingerprint(self, base: Any) -> dict[str, Any]:
        return {"request": content_hash("long_cot")}

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        request = render(REQUEST)
        for row in rows:
            *before, last = row["prompt"]
            if last["role"] != "user":
                yield Drop("the last turn is not the user's", str(row["id"]))
                continue
            asked = [*before, {**last, "content": f"{last['content']}\n\n{request}"}]
            yield {**row, "prompt": asked, "meta": {**row.get("meta", {}), "prompt": row["prompt"]}}


class TracesParams(Params):
    """format: the thinking format of the training rows (rewards/thinking.py); `none` keeps answers only.

    parts: how thought and answer are separated: by tags, or with the last line as the answer.
    """

    format: str = "think"
    parts: Literal["marks", "last_line"] = "marks"


class Traces(Step):
    """Well-formed traces as training rows: one thought, one answer, no tags or chat-template tokens inside."""

    kind = "traces"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    Params = TracesParams
    params: TracesParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        target = thinking(self.params.format)
        for row in rows:
            meta = dict(row.get("meta", {}))
            prompt = meta.pop("prompt", row["prompt"])
            reasoning = str(meta.pop("reasoning", "") or "")
            if self.params.parts == "last_line":
                thought, _, answer = row["completion"].strip().rpartition("\n")
                reason = "" if thought else "one line: no thought"
            else:
                thought, answer, reason = parts(row["completion"], reasoning)
            if not reason and meta.get("finish_reason") == "length":
                reason = "truncated"
            if not reason and CONTROL_MARK.search(f"{thought}\n{answer}"):
                reason = "a chat template's mark inside"
            if reason:
                yield Drop(reason, str(row["id"]), row["completion"][:200])
                continue
            try:
                text = target.render(thought if target.close else "", answer)
            except RewardError as error:
                yield Drop("does not fit the format", str(row["id"]), str(error))
                continue
            yield {**row, "prompt": prompt, "completion": text, "meta": meta}


def parts(completion: str, reasoning: str = "") -> tuple[str, str, str]:
    """Thought, answer, and why they do not form a trace ("" if they do).

    A missing closing tag at the end is tolerated, a partial one is not. Any other violation is a reason, and so is a
    tag of any format inside the parts.
    """
    text, own = without_end_token(completion).strip(), reasoning.strip()
    if any(text.endswith(ASKED.end[:length]) for length in range(3, len(ASKED.end))):
        return "", "", "truncated"
    if own and ASKED.open not in text and ASKED.close not in text:  # the endpoint returned the thought separately
        answer = text if ASKED.delimiter in text else f"{ASKED.delimiter}{text}{ASKED.end}"
        text = f"{ASKED.open}{ASKED.close}{answer}"
    if text.count(ASKED.end) == 0 and ASKED.delimiter in text:
        text += ASKED.end
    parsed = ASKED.parse(text)
    problems = [problem for problem in parsed.problems if problem != "empty_thought" or not own]
    if problems:
        return "", "", f"not one thought and one answer: {problems[0]}"
    thought = parsed.thought or own
    marked = next((mark for mark in MARKS if mark in f"{thought}\n{parsed.answer}"), None)
    return thought, parsed.answer, f"a mark inside: {marked}" if marked else ""
