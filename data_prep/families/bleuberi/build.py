"""The original's data sets: pool → answers → scores → choice as a pipeline, saved as `datasets` reads it, with a card.

All steps stand in the cache, so that the same command goes on where a killed one stopped. A data set that is there is
kept if it was made from the same rows by the same work, and refused as another's otherwise.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.engine import Progress
from data_prep.core.files import write_atomic
from data_prep.core.fingerprint import value_hash
from data_prep.core.manifest import counts_line, read_manifest
from data_prep.core.pipeline import StepSpec
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.families.bleuberi.choose import length_label
from data_prep.families.bleuberi.pool import messages_of
from data_prep.inference.apart import environment, run_apart

SHORT = {
    "claude-3-7-sonnet@20250219": "claude", "deepseek-chat-v3": "deepseek", "gemini-2.5-pro-exp-03-25": "gemini",
    "o4-mini-2025-04-16": "o4mini", "Llama-3.1-8B-Instruct": "llama",
}  # fmt: skip
METRICS: dict[str, tuple[str, dict[str, Any]]] = {
    "bleu": ("bleu", {"variant": "nmt"}), "rouge": ("rouge_l", {}), "bleu_rouge_f1": ("bleu_rouge_f1", {}),
    "rm": ("model", {}), "bertscore": ("bertscore", {}),
}  # fmt: skip
MADE = "made.json"
PLOTS = {"scores": " of the pool", "choice": " of the chosen"}  # step to what its scores are of
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Request:
    """The options of `grpo`, by the original's names; the last four are ours."""

    hf_dataset_path: str
    ref_models: tuple[str, ...]
    selection_mode: str
    num_examples: int | None
    metric: str | None
    model: str | None
    inference_max_new_tokens: int
    seed: int
    output_dir: Path
    output_dataset_name: str | None
    guarded: bool
    reward_params: dict[str, Any]
    cache: Path
    workers: int

    def spec(self) -> pipeline.Spec:
        """The pipeline. Raises DataError for options that do not fit together."""
        local = Path(self.hf_dataset_path).expanduser()
        if not local.exists() and not HUB_ID.fullmatch(self.hf_dataset_path):
            raise DataError(f"{self.hf_dataset_path!r} is neither here nor a data set on the Hub (owner/name)")
        where = {"path": str(local.absolute())} if local.exists() else {"hub": self.hf_dataset_path}
        choice = {"mode": self.selection_mode, "n": self.num_examples, "seed": self.seed, "guarded": self.guarded}
        steps = [StepSpec(name="pool", kind="reference_pool", params={**where, "ref_models": self.ref_models})]
        if self.selection_mode != "random":
            if not (self.metric and self.model):
                raise DataError(f"selection_mode {self.selection_mode} needs both --model and --metric")
            folder = Path(self.model).expanduser()
            sampling = {"temperature": 0.7, "top_p": 0.9, "max_tokens": self.inference_max_new_tokens}
            answers = {
                "model": str(folder.absolute()) if folder.is_dir() else self.model,
                "seed": self.seed,
                **sampling,
            }
            steps.append(StepSpec(name="answers", kind="generate", params=answers, inputs=("pool",)))
            reward, params = METRICS[self.metric]
            score = {"reward": reward, "params": {**params, **self.reward_params}, "workers": self.workers}
            steps.append(StepSpec(name="scores", kind="score", params=score, inputs=("answers",)))
        elif self.num_examples is None:
            raise DataError("selection_mode random needs --num_examples")
        steps.append(StepSpec(name="choice", kind="choose_by_likeness", params=choice, inputs=(steps[-1].name,)))
        if faults := pipeline.check(steps):
            raise DataError("\n".join(f"{fault.path[-1] if fault.path else ''}: {fault.message}" for fault in faults))
        return pipeline.Spec(name="bleuberi", base=Path.cwd(), cache=self.cache, steps=tuple(steps))

    def name(self, rows: int) -> str:
        """The data set's name, by default as the original makes it."""
        if self.output_dataset_name:
            return self.output_dataset_name
        references = "-".join(["", *(SHORT.get(model, model) for model in self.ref_models)])
        scored = f"{self.metric}_" if self.metric else ""
        model = f"{_basename(self.model)}_" if self.metric and self.model else ""
        mode = f"_{self.selection_mode}{'_guarded' if self.guarded else ''}"
        stem = f"{_basename(self.hf_dataset_path)}_{scored}{model}{len(self.ref_models)}ref{references}"
        return f"{stem}{mode}_{rows}"


def _basename(path: str) -> str:
    parts = path.rstrip("/").split("/")
    return "_".join(parts[-2:]) if "ckpts" in path else parts[-1]


def grpo(request: Request, progress: Progress) -> Path:
    """Run what is left of the pipeline and save its rows. Raises DataError."""
    spec = request.spec()
    for step, plan in zip(spec.steps, pipeline.plan(spec), strict=True):
        if plan.env == "core" or plan.state == "done":
            pipeline.run(spec, [step.name], progress)
        else:
            run_apart(spec, [step.name], environment(plan.env))
    folders = {plan.name: plan.dir for plan in pipeline.plan(spec)}
    chosen = read_manifest(folders["choice"])
    assert chosen is not None
    output = request.output_dir / "data_grpo" / request.name(chosen.rows_out)
    column = f"{request.metric}_score" if request.selection_mode != "random" else None
    made = {"choice": chosen.sha256, "columns": column or "no score"}
    if _saved(output, made):
        return output
    card = _card(request, spec, folders, output.name)

    def records() -> Iterator[dict[str, Any]]:
        for row in pipeline.read_rows(folders["choice"]):
            yield _record(row, column)

    plots = {f"{column}{end}": list(_scores(folders[step])) for step, end in PLOTS.items()} if column else {}
    save(output, records, card, made, plots)
    return output


def sft(source: Path, output_dir: Path, only: tuple[int, ...]) -> Path:
    """Of each row of a data set that `grpo` saved, a row for each reference. Raises DataError."""
    from datasets.load import load_from_disk

    train = source / "train"
    if not train.is_dir():
        raise DataError(f"{source}: no data set with a split `train`, as `grpo` saves it")
    data = load_from_disk(str(train))
    name = f"{source.name}_SFT{'-ref' + '-'.join(map(str, only)) if only else ''}"
    output = output_dir / "data_sft" / name
    made = {"of": data._fingerprint, "only": ",".join(map(str, only))}

    def records() -> Iterator[dict[str, Any]]:
        for row in data:
            for place, reference in enumerate(row["references"]):
                if not only or place in only:
                    turns = ({"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": reference})
                    yield {"id": f"{row['id']}_{place}", "source": row["source"], "messages": list(turns)}

    if not _saved(output, made):
        card = f"# {name}\n\nSFT rows of `{source.name}`: references {', '.join(map(str, only)) or 'all'} of each prompt.\n"
        save(output, records, card, made, {})
    return output


def _record(row: Row, column: str | None) -> dict[str, Any]:
    record = {
        "id": row["id"],
        "source": row["source"],
        "messages": messages_of(row),
        "prompt": row["prompt"][-1]["content"],
        "ground_truth": row.get("answer", ""),
        "references": row["references"],
    }
    return record | ({column: float(row["meta"]["likeness"])} if column else {})


def _saved(output: Path, made: dict[str, str]) -> bool:
    """Whether this very data set is there. Raises DataError where another one is."""
    if not output.exists():
        return False
    path = output / MADE
    if path.is_file() and json.loads(path.read_bytes()) == made:
        return True
    raise DataError(f"{output}: there already, and made otherwise: remove it, or give another name or folder")


def save(
    output: Path,
    records: Callable[[], Iterator[dict[str, Any]]],
    card: str,
    made: dict[str, str],
    plots: dict[str, list[float]],
) -> None:
    """A folder for `datasets.load_from_disk` with a split `train`, whole or not at all; rows are never all in memory."""
    from datasets import Dataset, DatasetDict
    from datasets.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        whole = Path(folder) / "whole"
        if next(records(), None) is None:
            raise DataError(f"{output.name}: no row is left to save")
        key = value_hash(made)[:16]
        data = Dataset.from_generator(records, cache_dir=str(Path(folder) / "cache"), fingerprint=key)
        DatasetDict({"train": data}).save_to_disk(str(whole))
        write_atomic(whole / "README.md", [card.encode()])
        for name, scores in plots.items():
            _histogram(whole / f"{name.replace(' ', '_')}.png", name, scores)
        write_atomic(whole / MADE, [json.dumps(made).encode()])
        del data
        shutil.move(whole, output)


def _scores(folder: Path) -> Iterator[float]:
    for row in pipeline.read_rows(folder):
        yield float(row["score"] if "score" in row else row["meta"]["likeness"])


def _histogram(path: Path, title: str, scores: list[float]) -> None:
    from matplotlib.figure import Figure

    axes = Figure(figsize=(7, 3.5), layout="constrained").subplots()
    axes.hist(scores, bins=50)
    axes.set(title=f"{title}: {len(scores):,} rows", xlabel="score", ylabel="rows")
    axes.figure.savefig(path, dpi=120)


def _card(request: Request, spec: pipeline.Spec, folders: dict[str, Path], name: str) -> str:
    """What the data set is, what was dropped on the way, and how much of the choice is a mismatch of lengths."""
    lines = [
        f"# {name}",
        "",
        f"Made by `python -m data_prep.families.bleuberi grpo`; references: {', '.join(request.ref_models)}.",
        "",
    ]
    lines += ["| step | rows in | rows out | dropped | key |", "|---|---|---|---|---|"]
    for step in spec.steps:
        manifest = read_manifest(folders[step.name])
        assert manifest is not None
        numbers = f"{manifest.rows_in:,} | {manifest.rows_out:,} | {counts_line(manifest.drops) or 'none'}"
        lines.append(f"| {step.name} | {numbers} | `{manifest.key[:12]}` |")
    if "scores" in folders:
        lines += ["", *_lengths(folders, request.metric == "bleu")]
    return "\n".join(lines) + "\n"


def _lengths(folders: dict[str, Path], bleu: bool) -> list[str]:
    """A table of length classes, pool and chosen; of BLEU also who is there by the brevity penalty alone."""
    pool: Counter[str] = Counter()
    without: dict[str, float] = {}
    for row in pipeline.read_rows(folders["scores"]):
        pool[length_label(row)] += 1
        penalty = row.get("meta", {}).get("score_details", {}).get("brevity_penalty", 0.0)
        without[row["meta"]["prompt_id"]] = row["score"] / penalty if penalty else row["score"]
    chosen = {row["id"]: row["meta"]["length"] for row in pipeline.read_rows(folders["choice"])}
    picked = Counter(chosen.values())
    lines = ["| the answer beside its shortest reference | pool, % | chosen, % |", "|---|---|---|"]
    for label, count in pool.most_common():
        shares = 100 * count / pool.total(), 100 * picked[label] / max(1, picked.total())
        lines.append(f"| {label} | {shares[0]:.1f} | {shares[1]:.1f} |")
    if bleu and chosen:
        lowest = set(sorted(without, key=without.__getitem__)[: len(chosen)])
        share = 100 * sum(name not in lowest for name in chosen) / len(chosen)
        lines += [
            "",
            f"{share:.1f} % of the chosen would not be among the {len(chosen):,} lowest without BLEU's brevity penalty.",
        ]
    return lines
