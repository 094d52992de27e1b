"""How fast `bleu` and `rouge_l` grade, beside the libraries that they must equal, and by how much they differ.

    $(python3 -m launchers.envs bench --device cpu) -m tests.bench.text_reward [folder of evaluate's metrics/bleu]

Groups of 8 completions share their references, texts have about 300 tokens. evaluate fetches its bleu script from
the Hub; where there is no network, and no folder is named, the plain formula runs in its place inside evaluate's
Metric: the same values, about an eighth cheaper, so the ratios come out lower than against the real one.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial

import bleuscore
import datasets
import evaluate
import nltk.translate.bleu_score as nltk_bleu
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

import rewards
from rewards.text.tokenise import rouge_tokens
from tests.bench.tables import cpu_now, cpu_seconds, show, versus
from tests.bench.texts import Group, groups
from tests.rewards.plain_scores import nmt_bleu, tokens_13a

Grader = Callable[[Sequence[Group]], list[float]]
FUZZED = 50_000
DISTINCT, SAMPLE = 2_000, 500  # texts that a pool is made of; its rows that evaluate scores
ROUNDS = 20  # of our graders at each turn, or the clock would see them only while they warm up
PIECES = (
    *(
        "a",
        "b",
        "the",
        "The",
        "5",
        "5.",
        ".5",
        "3.4",
        "1,000",
        ",",
        "..",
        "...",
        "-",
        "--",
        "1-2",
        "x-y",
        "'s",
        "(",
        "é",
    ),
    *("&amp;", "&lt;", "<skipped>", "\n", "-\n", "\t", "\x1c", "\x85", "\u2028", "中文", "K", "½", "$x_1$"),
)


class PlainMetric(evaluate.Metric):
    """The plain formula behind evaluate's interface, Arrow round trip included."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
        return evaluate.MetricInfo(description="BLEU", citation="", inputs_description="", features=features)

    def _compute(self, predictions: list[str], references: list[list[str]], smooth: bool = True) -> dict[str, float]:
        return {"bleu": nmt_bleu(predictions[0], references[0])}


def load_metric(folder: str | None) -> tuple[str, evaluate.Metric]:
    """evaluate's bleu, or what stands in for it."""
    try:
        return "evaluate", evaluate.load(folder or "bleu")
    except (ConnectionError, FileNotFoundError) as problem:
        print(f"no bleu script ({str(problem)[:80]}): the plain formula stands in for it", file=sys.stderr)
        return "evaluate (stand-in)", PlainMetric()


def each(grade: Callable[[str, list[str]], float], made: Sequence[Group]) -> list[float]:
    """One call per completion, as a library without groups is used."""
    return [grade(text, group.references) for group in made for text in group.completions]


def one_by_one(name: str, params: dict[str, object], made: Sequence[Group]) -> list[float]:
    """Our reward without batches; references are tabled anew, as each group is new in training."""
    reward = rewards.load(name, **params)
    return each(lambda text, references: reward.score({"references": references}, text).value, made)


def in_groups(name: str, params: dict[str, object], made: Sequence[Group]) -> list[float]:
    """Our reward through score_many, all rows at once."""
    rows = [{"references": group.references} for group in made for _ in group.completions]
    texts = [text for group in made for text in group.completions]
    return [score.value for score in rewards.load(name, **params).score_many(rows, texts)]


def nltk_method2(text: str, references: list[str]) -> float:
    smoothing = nltk_bleu.SmoothingFunction().method2
    return float(
        nltk_bleu.sentence_bleu([tokens_13a(one) for one in references], tokens_13a(text), smoothing_function=smoothing)
    )


def bleu_graders(metric_name: str, metric: evaluate.Metric) -> dict[str, Grader]:
    def as_bleuberi(text: str, references: list[str]) -> float:
        return float(metric.compute(predictions=[text], references=[references], smooth=True)["bleu"])

    def rust(text: str, references: list[str]) -> float:
        return float(bleuscore.compute(predictions=[text], references=[references], smooth=True)["bleu"])

    return {
        metric_name: partial(each, as_bleuberi),
        "sacrebleu": partial(each, lambda text, references: sacrebleu.sentence_bleu(text, references).score / 100),
        "nltk method 2": partial(each, nltk_method2),
        "bleuscore (Rust)": partial(each, rust),
        "rewards bleu, one by one": partial(one_by_one, "bleu", {}),
        "rewards bleu, score_many": partial(in_groups, "bleu", {}),
    }


def pool(metric_name: str, metric: evaluate.Metric, references: int) -> None:
    """A pool of prompts that each have references of their own, as a selection scores it: all of it by our reward, by
    evaluate the first rows only, whose time is scaled."""
    made = groups(DISTINCT // 10, references, completions=10)
    draw, texts = random.Random(0), [text for group in made for text in (*group.references, *group.completions)]
    rows = [
        {"references": [f"{draw.choice(texts)} {at}" for _ in range(references)], "text": f"{draw.choice(texts)} {at}"}
        for at in range(FUZZED)
    ]
    began = cpu_now()
    scores = rewards.load("bleu").score_many(rows, [row["text"] for row in rows])
    ours = cpu_now() - began
    began = cpu_now()
    theirs = [
        metric.compute(predictions=[row["text"]], references=[row["references"]], smooth=True)["bleu"]
        for row in rows[:SAMPLE]
    ]
    scaled = (cpu_now() - began) * FUZZED / SAMPLE
    show(
        f"{FUZZED:,} rows with {references} reference{'s' * (references > 1)} of their own, CPU seconds",
        [
            {
                "rewards bleu": f"{ours:.1f}", f"{metric_name} per row, scaled from {SAMPLE:,}": f"{scaled:.0f}",
                "times as fast": f"{scaled / ours:.1f}",
                "largest difference": f"{_apart([score.value for score in scores[:SAMPLE]], theirs):.2g}",
            }
        ],
    )  # fmt: skip


def rouge_graders(metric_name: str) -> dict[str, Grader]:
    scorer = RougeScorer(["rougeL"])
    return {
        metric_name: partial(each, lambda text, references: scorer.score_multi(references, text)["rougeL"].fmeasure),
        "rewards rouge_l, one by one": partial(one_by_one, "rouge_l", {}),
        "rewards rouge_l, score_many": partial(in_groups, "rouge_l", {}),
    }


def table(title: str, graders: dict[str, Grader], made: list[Group], repeats: int) -> None:
    """Speed of each grader beside the first one's, and the largest difference from its values."""
    baseline = next(iter(graders))
    values = {name: grade(made) for name, grade in graders.items()}
    rounds = {name: ROUNDS if name.startswith("rewards") else 1 for name in graders}
    work = {name: partial(_fresh, grade, made, rounds[name]) for name, grade in graders.items()}
    seconds = {name: taken / rounds[name] for name, taken in cpu_seconds(work, repeats).items()}
    rows = versus(baseline, seconds, sum(len(group.completions) for group in made))
    for row in rows:
        row["largest difference"] = f"{_apart(values[row['what']], values[baseline]):.2g}"
    show(title, rows)


def _fresh(grade: Grader, made: Sequence[Group], rounds: int) -> None:
    for _ in range(rounds):
        # evaluate and sacrebleu keep tokenised texts; the completions of a training step are new every time
        for forget in _caches():
            forget()
        grade(made)


@cache
def _caches() -> list[Callable[[], None]]:
    """The cache_clear of each tokeniser of sacrebleu and of evaluate's script."""
    modules = [module for name, module in sys.modules.items() if name.endswith(("tokenizer_13a", "tokenizer_re"))]
    classes = {thing for module in modules for thing in vars(module).values() if isinstance(thing, type)}
    return [one.__call__.cache_clear for one in classes if hasattr(one.__call__, "cache_clear")]


def _apart(some: Sequence[float], others: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(some, others, strict=True))


def fuzz(metric: evaluate.Metric) -> None:
    """Largest differences from the originals on short hostile texts."""
    draw = random.Random(0)

    def text() -> str:
        return draw.choice(("", " ")).join(draw.choices(PIECES, k=draw.randint(1, 24)))

    standard, effective = sacrebleu.BLEU(), sacrebleu.BLEU(effective_order=True)
    scorer = RougeScorer(["rougeL"])
    compute = getattr(metric, "_compute")  # noqa: B009 - without the Arrow round trip, which changes no value
    originals: dict[str, tuple[rewards.Reward, Callable[[str, list[str]], float]]] = {
        "bleu nmt": (rewards.load("bleu"), lambda t, r: compute([t], [r], smooth=True)["bleu"]),
        "bleu sacrebleu": (
            rewards.load("bleu", variant="sacrebleu"),
            lambda t, r: standard.sentence_score(t, r).score / 100,
        ),
        "bleu sacrebleu-effective": (
            rewards.load("bleu", variant="sacrebleu-effective"),
            lambda t, r: effective.sentence_score(t, r).score / 100,
        ),
        "rouge_l": (rewards.load("rouge_l"), lambda t, r: scorer.score_multi(r, t)["rougeL"].fmeasure),
    }
    pairs = [(text(), [text() for _ in range(draw.choice((1, 1, 2, 5)))]) for _ in range(FUZZED + FUZZED // 10)]
    # the originals need a token in each text
    pairs = [(t.strip(), r) for t, r in pairs if all(map(tokens_13a, (t, *r)))][:FUZZED]
    rows, everything = [], pairs
    for name, (reward, original) in originals.items():
        # of references without a token of its own rouge-score makes 0; ours compares tokens of any script
        lettered = [(t, r) for t, r in everything if any(map(rouge_tokens, r))]
        pairs = lettered if name == "rouge_l" else everything
        ours = [
            score.value for score in reward.score_many([{"references": r} for _, r in pairs], [t for t, _ in pairs])
        ]
        theirs = [original(t, r) for t, r in pairs]
        rows.append({"fuzzed": name, "pairs": len(pairs), "largest difference": f"{_apart(ours, theirs):.2g}"})
    show("Short hostile texts against the originals", rows)


def main() -> None:
    """Print the tables."""
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)  # it warns of short sentences at every call
    name, metric = load_metric(sys.argv[1] if len(sys.argv) > 1 else None)
    for references in (1, 5):
        plural = "s" if references > 1 else ""
        table(f"BLEU, {references} reference{plural}", bleu_graders(name, metric), groups(6, references), repeats=5)
    for references in (1, 5):
        plural = "s" if references > 1 else ""
        table(
            f"ROUGE-L, {references} reference{plural}", rouge_graders("rouge-score"), groups(2, references), repeats=3
        )
        pool(name, metric, references)
    fuzz(metric)


if __name__ == "__main__":
    main()
