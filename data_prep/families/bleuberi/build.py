"""The original's data sets as a pipeline (pool → answers → scores → choice), saved for `datasets`, with a card.

All steps are cached, so that the same command resumes after a kill. An existing data set is kept if it has the same
rows; otherwise the command fails.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

import rewards
from data_prep.core import pipeline
from data_prep.core.commands import CACHE, CPUS, Cache, Options
from data_prep.core.files import locked, write_atomic
from data_prep.core.fingerprint import value_hash
from data_prep.core.manifest import counts_line, read_manifest
from data_prep.core.pipeline import Spec
from data_prep.core.progress import Progress
from data_prep.errors import DataError
from data_prep.evaluation.agreement import FLOOR
from data_prep.families.bleuberi.pool import messages_of
from data_prep.inference.interpreters import chain, environment, run_chain
from data_prep.inference.vllm import reward_check
from data_prep.sources.tasks import ROOT
from data_prep.steps.choose import length_label
from data_prep.steps.references import Indices
from data_prep.steps.score import FAULTY
from data_prep.writers.huggingface import card

SHORT = {
    "claude-3-7-sonnet@20250219": "claude", "deepseek-chat-v3": "deepseek", "gemini-2.5-pro-exp-03-25": "gemini",
    "o4-mini-2025-04-16": "o4mini", "Llama-3.1-8B-Instruct": "llama",
}  # fmt: skip
METRICS: dict[str, tuple[str, dict[str, Any]]] = {
    "bleu": ("bleu", {"variant": "nmt"}), "rouge": ("rouge_l", {}), "bleu_rouge_f1": ("bleu_rouge_f1", {}),
    "rm": ("model", {"thinking": "none", "floor": FLOOR}), "bertscore": ("bertscore", {}),
}  # fmt: skip
ANSWERED = "required unless selection_mode is random"
HISTOGRAM = "scores.png"
ENCODER = """import rewards, sys
try: rewards.load('bertscore').check_ready()
except rewards.RewardError as error: sys.exit(str(error))"""
MADE = "made.json"  # in a data set: a hash of its rows
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
Records = Callable[[], Iterator[dict[str, Any]]]
Card = Callable[[Path], str]  # its text; may write plots into the data set's folder


class Request(Options):
    """Select prompts by reference similarity. --chat_template and the options after --output_dataset_name are ours."""

    hf_dataset_path: str = Field("yapeichang/BLEUBERI-Tulu3-50k", description="Hub id, folder or file")
    ref_models: tuple[str, ...] = Field(("gold",), min_length=1, description="models whose answers are the references")
    selection_mode: Literal["random", "easy", "medium", "hard"] = "hard"
    num_examples: int | None = Field(None, ge=1, description="number to select; by default all, highest score first")
    metric: Literal["bleu", "rouge", "bleu_rouge_f1", "rm", "bertscore"] | None = Field(None, description=ANSWERED)
    model: str | None = Field(None, description=f"model whose answers are scored; {ANSWERED}")
    chat_template: str | None = Field(None, description="Jinja file, for a model whose tokenizer has no template")
    inference_max_new_tokens: int = Field(512, ge=1, description="token limit of an answer")
    seed: int = Field(42, ge=0, lt=2**32, description="seed of sampling and of a random selection")
    output_dir: Path = Field(Path("../data"), description="<output_dir>/data_grpo/<name>")
    output_dataset_name: str | None = Field(None, description="by default derived from the options, as in the original")
    guarded: bool = Field(False, description="skip prompts that are hard only by their length (choose.py)")
    reward_model: str = Field("Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", description="reward model of metric rm")
    reward_model_url: str | None = Field(None, description="address of its server")
    reward_model_elsewhere: bool = Field(False, description="no local weights: skip the check against transformers")
    workers: int = CPUS
    cache: Cache = CACHE

    @model_validator(mode="after")
    def _has_server(self) -> Self:
        if self.metric == "rm" and not self.reward_model_url:
            raise ValueError(f"metric rm needs a server: `vllm serve {self.reward_model}`; give its --reward_model_url")
        return self

    @property
    def column(self) -> str | None:
        """The score's column."""
        return None if self.selection_mode == "random" else f"{self.metric}_score"

    def spec(self) -> Spec:
        """The pipeline. Raises DataError for options that do not fit together."""
        local = Path(self.hf_dataset_path).expanduser()
        if not local.exists() and not HUB_ID.fullmatch(self.hf_dataset_path):
            raise DataError(f"{self.hf_dataset_path!r} is neither a local path nor a Hub id (owner/name)")
        where = {"path": str(local.absolute())} if local.exists() else {"hub": self.hf_dataset_path}
        steps: list[dict[str, Any]] = [{"reference_pool": {"name": "pool", **where, "ref_models": self.ref_models}}]
        if self.column:
            steps += self._scored()
        elif self.num_examples is None:
            raise DataError("selection_mode random needs --num_examples")
        choice = {"mode": self.selection_mode, "n": self.num_examples, "seed": self.seed, "guarded": self.guarded}
        steps.append({"choose_by_likeness": {"name": "choice", **choice}})
        # Prompts that are too long for the model count as bad rows.
        return chain("bleuberi", self.cache, steps, max_drop_share=0.2)

    def _scored(self) -> list[dict[str, Any]]:
        """The steps that answer the prompts and score the answers. Raises DataError."""
        if not (self.metric and self.model):
            raise DataError(f"selection_mode {self.selection_mode} needs both --model and --metric")
        folder = Path(self.model).expanduser()
        sampling = {"temperature": 0.7, "top_p": 0.9, "max_tokens": self.inference_max_new_tokens, "seed": self.seed}
        answers = {"model": str(folder.absolute()) if folder.is_dir() else self.model, **sampling}
        if self.chat_template:
            answers["chat_template"] = str(Path(self.chat_template).expanduser().absolute())
        reward, params = METRICS[self.metric]
        if self.metric == "rm":
            params = {**params, "url": self.reward_model_url, "model": self.reward_model}
        score = {"reward": reward, "params": params, "workers": self.workers}
        return [{"generate": {"name": "answers", **answers}}, {"score": {"name": "scores", **score}}]

    def name(self, rows: int) -> str:
        """The data set's name, by default the original's."""
        if self.output_dataset_name:
            return self.output_dataset_name
        gold_first = sorted(self.ref_models, key=lambda model: model != "gold")
        references = "".join(f"-{SHORT.get(model, model)}" for model in gold_first)
        scored = f"{self.metric}_{_basename(self.model or '')}_" if self.metric else ""
        mode = f"{self.selection_mode}{'_guarded' if self.guarded else ''}"
        return f"{_basename(self.hf_dataset_path)}_{scored}{len(self.ref_models)}ref{references}_{mode}_{rows}"


def _basename(path: str) -> str:
    parts = path.rstrip("/").split("/")
    return "_".join(parts[-2:]) if "ckpts" in path else parts[-1]


def grpo(request: Request, progress: Progress) -> str:
    """Run the pipeline (resuming) and save its rows. Raises DataError."""
    spec, column = request.spec(), request.column
    if any(step.name == "scores" and step.state != "done" for step in pipeline.plan(spec)):
        _check_reward(request)  # before hours of sampling
    folders = run_chain(spec, progress)
    chosen = read_manifest(folders["choice"])
    assert chosen is not None

    def records() -> Iterator[dict[str, Any]]:
        for row in pipeline.read_rows(folders["choice"]):
            score = {column: float(row["meta"]["likeness"])} if column else {}
            prompt, gold = row["prompt"][-1]["content"], row.get("answer", "")
            record = {"id": row["id"], "source": row["source"], "messages": messages_of(row), "prompt": prompt}
            yield {**record, "ground_truth": gold, "references": row["references"], **score}

    output = request.output_dir / "data_grpo" / request.name(chosen.rows_out)
    save(output, records, lambda folder: _card(request, spec, folders, folder), value_hash([chosen.sha256, column]))
    return str(output)


def _check_reward(request: Request) -> None:
    """Raises RewardError or DataError unless bertscore's encoder is available, or metric rm's server serves the model
    and agrees with transformers."""
    if request.metric == "bertscore":
        done = subprocess.run([environment("vllm"), "-c", ENCODER], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise DataError(done.stderr.strip().splitlines()[-1])
    if request.metric == "rm" and request.reward_model_url:
        url = request.reward_model_url
        rewards.load("model", url=url, model=request.reward_model).check_ready()
        reward_check.verify(environment("vllm"), request.reward_model, url, request.reward_model_elsewhere)


class SftRequest(Options):
    """Write an SFT row for each reference."""

    input_data_path: Path = Field(description="a data set that grpo saved")
    output_dir: Path = Field(Path("../data"), description="<output_dir>/data_sft/<name>_SFT")
    references: Indices = Field((), description="indices of the references to use; by default all")


def sft(request: SftRequest, progress: Progress) -> str:
    """From each row of a data set saved by `grpo`, write a row per reference. Raises DataError."""
    from datasets.arrow_dataset import Dataset

    source, only = request.input_data_path, request.references
    if not (source / "train").is_dir():
        raise DataError(f"{source}: not a data set saved by `grpo`: it has no split `train`")
    data = Dataset.load_from_disk(str(source / "train"))
    if lacking := [name for name in ("id", "prompt", "references") if name not in data.column_names]:
        columns = ", ".join(data.column_names)
        raise DataError(f"{source}: not a data set saved by `grpo`: no column {lacking[0]}; columns: {columns}")
    dropped: Counter[str] = Counter()

    def records() -> Iterator[dict[str, Any]]:
        dropped.clear()
        for row in cast(Iterator[dict[str, Any]], iter(data)):
            prompt, given = row["prompt"], row["references"]
            references = [given] if isinstance(given, str) else given or []
            if not isinstance(prompt, str) or not prompt.strip():
                dropped["no prompt"] += 1
                continue
            for place in only or range(max(1, len(references))):
                reference = references[place] if place < len(references) else None
                if not isinstance(reference, str) or not reference.strip():
                    dropped[f"no reference {place}"] += 1
                    continue
                turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reference}]
                yield {"id": f"{row['id']}_{place}", "source": row.get("source") or "unknown", "messages": turns}

    if next(records(), None) is None:
        raise DataError(f"{source}: no rows left: {counts_line(dropped) or 'it is empty'}")
    output = request.output_dir / "data_sft" / f"{source.name}_SFT{'-ref' + '-'.join(map(str, only)) if only else ''}"
    taken = ", ".join(map(str, only)) or "all"

    def text(_: Path) -> str:
        made = f"# {output.name}\n\nSFT rows of `{source.name}`: references {taken} of each prompt.\n"
        return made + (f"\nDropped: {counts_line(dropped)}.\n" if dropped else "")

    save(output, records, text, value_hash([data._fingerprint, only]))
    return str(output)


def save(output: Path, records: Records, text: Card, key: str) -> None:
    """Atomically write a folder for `load_from_disk` with a split `train`, without holding all rows in memory.

    One writer at a time. An existing set is kept if `key`, a hash of its rows, is the same. Raises DataError.
    """
    from datasets.arrow_dataset import Dataset
    from datasets.dataset_dict import DatasetDict
    from datasets.utils.tqdm import disable_progress_bars

    output.parent.mkdir(parents=True, exist_ok=True)
    folder = output.with_name(f".{output.name}.writing")
    with locked(output.with_name(f".{output.name}.lock"), lambda: None):
        if output.exists():
            if (output / MADE).is_file() and json.loads((output / MADE).read_bytes()) == key:
                return
            raise DataError(f"{output}: exists with other rows: remove it, or choose another name or folder")
        if next(records(), None) is None:
            raise DataError(f"{output.name}: no rows left to save")
        disable_progress_bars()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            complete = folder / "whole"
            data = Dataset.from_generator(records, cache_dir=str(folder / "cache"), fingerprint=key[:16])
            DatasetDict({"train": data}).save_to_disk(str(complete))
            write_atomic(complete / "README.md", [text(complete).encode()])
            write_atomic(complete / MADE, [json.dumps(key).encode()])
            del data
            shutil.move(complete, output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _card(request: Request, spec: Spec, folders: dict[str, Path], output: Path) -> str:
    """The data set's card: how the rows were made, what was dropped, and how far length mismatch drives the selection.

    Writes the histogram of scores next to it.
    """
    done = [(step.name, read_manifest(folders[step.name]), json.dumps(step.params, default=str)) for step in spec.steps]
    facts = {"request": request, "steps": done, "counts_line": counts_line, "histogram": HISTOGRAM, "lengths": None}
    if "scores" in folders:
        facts["lengths"] = _lengths(folders, request.selection_mode == "hard" and not request.guarded)
        _histogram(output / HISTOGRAM, folders, request.metric or "")
    return card("bleuberi.md.j2", facts)


def _histogram(path: Path, folders: dict[str, Path], metric: str) -> None:
    """Scores of the pool and of the chosen rows, with logarithmic counts."""
    from matplotlib.figure import Figure

    pool = [row["score"] for row in pipeline.read_rows(folders["scores"]) if row["outcome"] not in FAULTY]
    chosen = [row["meta"]["likeness"] for row in pipeline.read_rows(folders["choice"])]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    labels = [f"chosen, {len(chosen):,}", f"pool, {len(pool):,}"]
    axes.hist([chosen, pool], bins=50, histtype="stepfilled", label=labels, color=["tab:blue", "lightgrey"])
    axes.set(xlabel=metric, ylabel="rows", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def _lengths(folders: dict[str, Path], lowest_chosen: bool) -> dict[str, Any]:
    """Shares of length classes in the pool and among the chosen rows, in percent; for the card.

    If the rows with the lowest BLEU were chosen, also the share chosen only because of the brevity penalty.
    """
    pool: Counter[str] = Counter()
    unpenalised: dict[str, float] = {}
    for row in pipeline.read_rows(folders["scores"]):
        pool[length_label(row)] += 1
        if penalty := row["meta"].get("score_details", {}).get("brevity_penalty"):
            unpenalised[row["meta"]["prompt_id"]] = row["score"] / penalty
    chosen = {row["id"]: row["meta"]["length"] for row in pipeline.read_rows(folders["choice"])}
    picked, penalised = Counter(chosen.values()), None
    if unpenalised and lowest_chosen:
        lowest = set(sorted(unpenalised, key=unpenalised.__getitem__)[: len(chosen)])
        penalised = 100 * sum(name in unpenalised and name not in lowest for name in chosen) / len(chosen)
    classes = [(label, count / pool.total(), picked[label] / picked.total()) for label, count in pool.most_common()]
    return {"shares": [(label, 100 * before, 100 * after) for label, before, after in classes], "penalised": penalised}
