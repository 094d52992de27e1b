"""Hugging Face data sets: a folder in the layout of a Hub repository, and one for `load_from_disk`.

    export/NAME/README.md, data/train-00000-of-00001.parquet     push_to_hub, or `hf upload OWNER/NAME export/NAME`
    export/NAME.saved/                                           datasets.load_from_disk

Columns are TRL's (messages; or prompt, chosen and rejected), then id, source, answer, references, score
and meta, as JSON text since sources have different meta fields.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.core.files import write_atomic
from data_prep.core.step import Row
from data_prep.sources.tasks import ROOT
from data_prep.writers.parquet import parquet
from data_prep.writers.torchtune import conversation

if TYPE_CHECKING:
    from pyarrow.lib import Schema

CARDS = ROOT / "templates" / "cards"


@contextmanager
def dataset(folder: Path, name: str, pairs: bool) -> Iterator[Callable[[Row], None]]:
    """Writes conversations or pairs to both folders, with a card. Raises DataError."""
    from datasets.arrow_dataset import Dataset

    hub, saved = folder / name, folder / f"{name}.saved"
    for old in (hub, saved):
        shutil.rmtree(old, ignore_errors=True)
    (hub / "data").mkdir(parents=True)
    sources: Counter[str] = Counter()
    path = hub / "data" / "train-00000-of-00001.parquet"
    with parquet(path, _pair if pairs else _conversation, _schema(pairs)) as write:

        def counted(row: Row) -> None:
            sources[str(row.get("source", ""))] += 1
            write(row)

        yield counted
    cache = folder / ".cache"
    rows = Dataset.from_parquet(str(path), cache_dir=str(cache))
    rows.save_to_disk(str(saved))
    shutil.rmtree(cache)
    facts = {"name": name, "pairs": pairs, "sources": sources, "columns": rows.column_names}
    size = {"rows": sources.total(), "bytes": path.stat().st_size}
    write_atomic(hub / "README.md", [card("dataset.md.j2", {**facts, **size}).encode()])


def card(file: str, facts: Mapping[str, Any]) -> str:
    """The card of a data set or a model, from a template in templates/cards."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string((CARDS / file).read_text("utf-8")).render(facts)


def _schema(pairs: bool) -> Schema:
    from pyarrow.lib import float64, list_, schema, string, struct

    messages = list_(struct([("role", string()), ("content", string())]))
    texts = ("prompt", "chosen", "rejected") if pairs else ("messages",)
    rest = [(name, string()) for name in ("id", "source", "answer", "meta")]
    return schema([*((name, messages) for name in texts), *rest, ("references", list_(string())), ("score", float64())])


def _conversation(row: Row) -> dict[str, Any]:
    return {"messages": conversation(row, row["completion"]), **_facts(row)}


def _pair(row: Row) -> dict[str, Any]:
    *prompt, chosen = conversation(row, row["completion"])
    return {"prompt": prompt, "chosen": [chosen], "rejected": conversation(row, row["rejected"])[-1:], **_facts(row)}


def _facts(row: Row) -> dict[str, Any]:
    facts = {name: row.get(name) for name in ("id", "source", "answer", "references", "score")}
    return facts | {"meta": json.dumps(row["meta"], ensure_ascii=False) if row.get("meta") else None}
