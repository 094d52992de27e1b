"""Small specs and files for tests of data steps."""

import json
import shutil
from pathlib import Path

from data_prep.core import pipeline
from data_prep.core.manifest import Manifest

Item = tuple[str, dict]


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict]:
    """Values in a file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def rows(count: int, **extra) -> list[dict]:
    return [
        {"prompt": f"question {n}", "completion": f"answer é {n}", "meta": {"index": n}, **extra} for n in range(count)
    ]


def spec(folder: Path, *items: Item, cache: str = "cache", **extra) -> pipeline.Spec:
    """A linear pipeline."""
    names = [kind for kind, _ in items]
    steps = [
        {"name": kind, "kind": kind, "params": params, "inputs": names[at - 1 : at] if at else []}
        for at, (kind, params) in enumerate(items)
    ]
    return pipeline.Spec.model_validate(
        {"name": "test", "base": str(folder), "cache": str(folder / cache), "steps": steps, **extra}
    )


def run(folder: Path, *items: Item, **extra) -> tuple[Manifest, list[dict]]:
    """The last step's manifest and rows."""
    chain = spec(folder, *items, **extra)
    manifest = pipeline.run(chain)[-1]
    return manifest, list(pipeline.read_rows(pipeline.find(chain)))


def shards(directory: Path) -> dict[str, bytes]:
    """Rows and drops of a step's directory, by file name."""
    return {path.name: path.read_bytes() for path in sorted((directory / "shards").glob("*.jsonl"))}


def base_model(model: Path, folder: Path) -> Path:
    """A copy of a model without its chat template, which lies beside it in template.jinja."""
    base = shutil.copytree(model, folder / "base", ignore=shutil.ignore_patterns("chat_template*"))
    config = json.loads((base / "tokenizer_config.json").read_text())
    template = config.get("chat_template") or (model / "chat_template.jinja").read_text()
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    (folder / "template.jinja").write_text(template)
    return base
