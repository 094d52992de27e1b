"""Prepares prompts for online RL like the original's command: converts JSON to two parquet files in verl's columns."""

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from data_prep.core.commands import Options
from data_prep.core.files import whole_file
from data_prep.core.progress import Progress
from data_prep.errors import DataError
from data_prep.sources.files import read_json
from data_prep.text.normalise import text_hash


class Message(BaseModel):
    """A chat message; other fields are ignored."""

    role: str
    content: str


MESSAGES = TypeAdapter(list[Message])


class Request(Options):
    """Prepare prompts for online RL, with the option names and defaults of the original's prepare_wildchat_data.py."""

    input_json: Path = Field(description="a list of {instruction} or {messages}")
    data_source: str = Field("wildchat", description="prefix of the file names, and the rows' source")
    local_dir: Path = Field(Path("data"), description="output folder")
    num_examples: int = Field(200_000, ge=1, description="maximum number of training prompts")
    num_validation_examples: int = Field(1_000, ge=0, description="number of held-out prompts")
    seed: int = Field(42, description="seed of the shuffle")


def command(request: Request, progress: Progress) -> str:
    """Write <data_source>_{train,val}.parquet and return the paths. Drops are counted on stderr. Raises DataError."""
    entries = read_json(request.input_json)
    if not isinstance(entries, list):
        raise DataError(f"{request.input_json}: expected a JSON list of entries, got {type(entries).__name__}")
    rows, drops, known = [], Counter[str](), set[bytes]()
    for number, entry in enumerate(entries):
        prompt = _prompt(entry)
        if isinstance(prompt, str):
            drops[prompt] += 1
            continue
        if (text := text_hash({"prompt": prompt}, ("prompt",))) in known:  # else it could be in both files
            drops["duplicate prompt"] += 1
            continue
        known.add(text)
        about = {key: str(entry[key]) for key in ("id", "source", "domain") if entry.get(key) is not None}
        rows.append({"index": number, "prompt": prompt, "about": about})
    random.Random(request.seed).shuffle(rows)  # noqa: S311 (an order, no secret)
    held_out = rows[: request.num_validation_examples]
    train = rows[request.num_validation_examples :][: request.num_examples]
    if not train:
        raise DataError(
            f"{request.input_json}: {len(rows)} usable prompts, all needed for validation: "
            f"lower --num_validation_examples ({request.num_validation_examples})"
        )
    drops["beyond num_examples"] = len(rows) - len(held_out) - len(train)
    for reason, count in (+drops).most_common():
        print(f"dropped {count:,}: {reason}", file=sys.stderr)
    return "\n".join(str(_write(request, split, part)) for split, part in (("train", train), ("val", held_out)))


def _prompt(entry: Any) -> list[dict[str, str]] | str:
    """Chat messages that end with a user turn, or why the entry has none."""
    if not isinstance(entry, dict):
        return "not an object"
    instruction, messages = entry.get("instruction"), entry.get("messages")
    if isinstance(instruction, str):
        messages = [{"role": "user", "content": instruction}]
    try:
        prompt = MESSAGES.validate_python(messages, strict=True)
    except ValidationError:
        return "neither instruction nor messages"
    while prompt and prompt[-1].role == "assistant":
        prompt.pop()
    if not prompt or prompt[-1].role != "user" or not prompt[-1].content.strip():
        return "no user turn at the end"
    return [message.model_dump() for message in prompt]


def _write(request: Request, split: str, rows: list[dict[str, Any]]) -> Path:
    from pyarrow.lib import Table
    from pyarrow.parquet import write_table

    table = Table.from_pylist(
        [
            {
                "data_source": request.data_source,
                "prompt": row["prompt"],
                "ability": "chat",
                "reward_model": {"style": "model", "ground_truth": ""},
                "extra_info": {"split": split, "index": row["index"], **row["about"]},
            }
            for row in rows
        ]
    )
    request.local_dir.mkdir(parents=True, exist_ok=True)
    path = request.local_dir / f"{request.data_source}_{split}.parquet"
    with whole_file(path) as file:
        write_table(table, file)  # type: ignore[no-untyped-call]  # pyarrow has none
    return path
