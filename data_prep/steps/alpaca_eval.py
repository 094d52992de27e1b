"""AlpacaEval 2: verdicts and length-controlled win rate from its own annotator, on any OpenAI-compatible endpoint.

`eval.harness: alpaca_eval` puts the step after `generate` (launchers/harnesses); it runs in the environment
`alpaca_eval`. Rows have a `completion` and the baseline's answer as `answer`; the thought is removed first. The prompt,
the order of the two answers and the parsing of the verdict are those of `weighted_alpaca_eval_gpt4_turbo`: the score is
the judge's probability of preferring our answer, from the log-probabilities of its first token. A row without a verdict
is dropped. Each row is output twice: with its win score, and, under its source plus `_lc`, with its length-controlled
score from the package's GLM.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field

from data_prep.core.documents import read_yaml
from data_prep.core.files import write_atomic
from data_prep.core.rows import with_meta
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.inference.api.keys import NO_KEY, KeySource, read_keys
from rewards.thinking import PRESETS, ThinkingFormat

LENGTH_CONTROLLED = "_lc"  # suffix of the second result's source
ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"


class GradeParams(Params):
    """length_controlled: needs tatsu-lab/alpaca_eval from the Hub, and exactly its 805 questions."""

    model: str
    base_url: str = Field(pattern=r"^https?://")
    api_key_env: KeySource = None
    thinking: ThinkingFormat = PRESETS["none"]
    length_controlled: bool = True
    concurrency: int = Field(5, ge=1)


class AlpacaEvalGrade(Step[GradeParams]):
    """Scores completions against a baseline's answers: the judge's preference for ours, from 0 to 1."""

    kind = "alpaca_eval_grade"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "answer")
    present: ClassVar[tuple[str, ...]] = ("completion",)
    unkeyed: ClassVar[tuple[str, ...]] = ("api_key_env", "concurrency")
    packages: ClassVar[tuple[str, ...]] = ("alpaca-eval", "scikit-learn")

    def env(self) -> str:
        return "alpaca_eval"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """The rows with `score`; paid verdicts are kept in the step's folder."""
        p = self.params
        asked = [row["prompt"][-1]["content"] for row in rows]
        if len(set(asked)) < len(asked):
            raise DataError("alpaca_eval: a question has two completions, but one is judged: set eval.n to 1")
        if p.length_controlled:
            _check_whole(len(asked))
        ours = [p.thinking.answer_of(row["completion"]) for row in rows]
        verdicts = self._verdicts(asked, ours, [row["answer"] for row in rows], ctx)
        for row, verdict in zip(rows, verdicts, strict=True):
            if verdict["preference"] != verdict["preference"]:  # NaN
                yield Drop("the judge gave no verdict", row["id"], bad=True)
                continue
            yield _scored(row, row["source"], "win rate", verdict["preference"] - 1)
            if p.length_controlled:
                name = f"{row['source']}{LENGTH_CONTROLLED}"
                yield _scored(row, name, "length-controlled win rate", verdict["glm_preference"])

    def _verdicts(self, asked: list[str], ours: list[str], baseline: list[str], ctx: Context) -> list[dict[str, Any]]:
        """preference (1: the baseline, 2: ours) and glm_preference of each question, in order."""
        p = self.params
        key = ",".join(read_keys(p.api_key_env, ctx.base)) or NO_KEY
        # read when the package is imported; without a file of clients it takes these
        os.environ |= {
            "OPENAI_API_BASE": p.base_url, "OPENAI_API_KEYS": key, "OPENAI_CLIENT_CONFIG_PATH": os.devnull,
            "OPENAI_MAX_CONCURRENCY": str(p.concurrency),
        }  # fmt: skip
        import pandas as pd
        from alpaca_eval import annotators, metrics

        annotator = annotators.PairwiseAnnotator(
            annotators_config=_annotator(ctx.dir / "annotator", p.model), caching_path=ctx.dir / "verdicts.json"
        )

        def side(name: str, texts: list[str]) -> list[dict[str, str]]:
            pairs = zip(asked, texts, strict=True)
            return [{"instruction": question, "output": text, "generator": name} for question, text in pairs]

        sides = {"outputs_1": side("baseline", baseline), "outputs_2": side("model", ours)}
        made = pd.DataFrame(annotator.annotate_head2head(**sides))
        if list(made["instruction"]) != asked:
            raise DataError(f"alpaca_eval joined {len(made)} of {len(asked)} questions, or changed their order")
        made["preference"] = made["preference"].astype(float)
        if p.length_controlled:
            metrics.get_length_controlled_winrate(made, save_weights_dir=None)
        return cast("list[dict[str, Any]]", made.to_dict("records"))


def _annotator(folder: Path, model: str) -> Path:
    """A folder with the package's config of ANNOTATOR, changed to our judge model."""
    from alpaca_eval import constants

    configs = Path(constants.EVALUATORS_CONFIG_DIR)
    config = read_yaml(configs / ANNOTATOR / "configs.yaml")[ANNOTATOR]
    config["prompt_template"] = str(configs / config["prompt_template"])
    config["completions_kwargs"] |= {"model_name": model, "requires_chatml": True, "price_per_token": 0}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "configs.yaml", [json.dumps({"judge": config}).encode()])  # JSON is YAML
    return folder


def _check_whole(questions: int) -> None:
    """Raises DataError unless the number of questions equals that of the regression's difficulties."""
    import pandas as pd
    from huggingface_hub import hf_hub_download

    gamed = pd.read_csv(hf_hub_download("tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset"))
    if (known := gamed["index"].nunique()) != questions:
        raise DataError(
            f"alpaca_eval's length control needs all of its {known} questions, got {questions}: judge all, or "
            "set length_controlled: false"
        )


def _scored(row: Row, source: str, metric: str, value: float) -> Row:
    scored = {**row, "source": source, "score": value, "outcome": "scored"}
    return with_meta(scored, metric={"name": metric, "higher_is_better": True})
