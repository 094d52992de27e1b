"""Training rows that repeat a benchmark's question are found by each rule, with the evidence; others stay."""

import random

import making
import pytest
from hypothesis import given, strategies

from data_prep import overlap
from data_prep.errors import DataError
from data_prep.overlap import Benchmark, Rules

WORDS = [f"word{n}" for n in range(3000)]


def text(rng: random.Random, count: int) -> list[str]:
    return rng.choices(WORDS, k=count)


def decontaminate(folder, questions: list[str], prompts: list[str], completions=None, **params):
    making.write_jsonl(
        folder / "bench.jsonl", [{"id": str(n), "problem": one, "answer": "1"} for n, one in enumerate(questions)]
    )
    lines = [{"id": f"r{n}", "prompt": one, "completion": "c"} for n, one in enumerate(prompts)]
    for line, said in zip(lines, completions or (), strict=False):
        line["completion"] = said
    making.write_jsonl(folder / "in.jsonl", lines)
    given = {"against": ["math500"], "paths": {"math500": "bench.jsonl"}, **params}
    manifest, found = making.run(folder, ("load", {"path": "in.jsonl"}), ("decontaminate", given))
    return manifest, [row["id"] for row in found]


def test_each_rule_finds_what_it_says_and_keeps_the_evidence(tmp_path):
    rng = random.Random(1)
    long, other, short = text(rng, 60), text(rng, 40), "What is 17 + 4?"
    prompts = [
        " ".join([*text(rng, 30), *long[20:33], *text(rng, 30)]),  # 13 words of it, in another text
        " ".join([*text(rng, 30), *long[20:32], *text(rng, 30)]),  # 12: neither rule holds
        " ".join(word for at, word in enumerate(other) if at not in (12, 25)).upper() + " !",  # changed here and there
        "what is  17+4 ?",
        " ".join(text(rng, 50)),
    ]
    manifest, ids = decontaminate(tmp_path, [" ".join(long), " ".join(other), short], prompts, near=0.5, share=None)
    assert ids == ["r1", "r4"]
    assert manifest.drops == {"repeats math500": 3}
    told = {one["row_id"]: one["detail"] for one in manifest.examples["repeats math500"]}
    assert "13 words" in told["r0"]
    assert " ".join(long[20:33]) in told["r0"]
    assert told["r3"].split(": ")[1] == "equal"
    assert told["r0"].startswith("math500/0: "), "the question's id"


def test_most_of_a_question_split_up_is_found_by_its_8_grams():
    rng = random.Random(2)
    question = text(rng, 44)
    parts = [question[at : at + 11] for at in range(0, 44, 11)]  # 4 of each 11 words' 8-grams: 16 of 37
    split = " ".join(" ".join([*part, *text(rng, 5)]) for part in parts)
    found = {
        share: Benchmark([("t", "1", " ".join(question))], Rules(share=share)).matches([split])[0]
        for share in (0.4, 0.5)
    }
    assert found[0.5] is None
    assert found[0.4] is not None
    assert found[0.4].rule == "0.43 of its 8-grams"


def test_near_duplicates_are_found_and_the_threshold_is_exact():
    rng = random.Random(3)
    question = text(rng, 104)  # 100 5-grams
    changed = [*question[:50], "else", *question[51:]]  # 5 of them are other ones: 95 of 105 are shared
    for near, rule in ((0.90, "0.90 alike"), (0.91, None)):
        known = Benchmark([("t", "1", " ".join(question))], Rules(any_of=None, share=None, near=near))
        match = known.matches([" ".join(changed)])[0]
        assert (match.rule if match else None) == rule


def test_instructions_that_all_questions_have_are_no_evidence():
    rng = random.Random(4)
    instruction = " ".join(text(rng, 40))
    questions = [("t", str(n), f"{instruction} {' '.join(text(rng, 20))}") for n in range(8)]
    known = Benchmark(questions, Rules())
    alike = f"{instruction} {' '.join(text(rng, 20))}"
    taken = f"Something else. {questions[5][2]} And more."
    assert known.matches([alike, taken, instruction]) == [None, known.matches([taken])[0], None]
    match = known.matches([taken])[0]
    assert match is not None
    assert match.question == "5"


def test_fields_decide_where_is_looked(tmp_path):
    question = " ".join(text(random.Random(5), 30))
    only_prompts = decontaminate(tmp_path, [question], ["a", "b"], ["x", f"so: {question}"])
    assert only_prompts[1] == ["r0", "r1"]
    assert decontaminate(tmp_path, [question], ["a", "b"], ["x", f"so: {question}"], fields=["prompt", "completion"])[
        1
    ] == ["r0"]


def test_a_long_text_that_holds_five_words_is_found_where_five_are_enough():
    """Though near duplicates have n-grams of as many words, and such a text is none."""
    rng = random.Random(6)
    question, around = text(rng, 20), text(rng, 400)
    holding = " ".join([*around, *question[:5]]), " ".join([*around, *question])
    for rules in Rules(any_of=5), Rules(any_of=None, of=5):
        one, all_ = Benchmark([("t", "1", " ".join(question))], rules).matches(holding)
        assert (one is not None) == (rules.any_of == 5)
        assert all_ is not None


def test_words_of_any_length_are_compared():
    question = [f"{n}".ljust(at, "0") for n, at in enumerate(range(1, 100, 7), 10)]  # words of 2 to 99 digits
    known = Benchmark([("t", "1", " ".join(question))], Rules())
    for _ in range(2):  # of the second text the short words have been met before
        found = known.matches([" ".join(["so", *question]), " ".join([*question[:7], "so", *question[7:]])])
        assert [match is not None for match in found] == [True, False]


@given(strategies.text(alphabet=strategies.characters(max_codepoint=127)))
def test_the_words_of_ascii_are_those_of_the_same_text_among_other_letters(said):
    assert overlap.words_of(f"{said} é") == [*overlap.words_of(said), "é"]


@pytest.mark.parametrize("seed", range(20))
def test_looking_up_by_hashes_finds_what_comparing_all_with_all_finds(seed):
    rng = random.Random(seed)
    words = WORDS[:30]  # so few that n-grams meet by chance
    questions = [("t", str(n), " ".join(rng.choices(words, k=rng.randint(1, 40)))) for n in range(12)]
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 30))) for _ in range(40)]
    for _, _, question in questions:  # and pieces of questions
        said = question.split()
        start = rng.randint(0, len(said))
        texts.append(" ".join([*said[start : start + 14], *rng.choices(words, k=rng.randint(0, 9))]))
    rules = Rules(share=0.5, near=0.6)
    found = Benchmark(questions, rules).matches(texts)
    assert any(found)
    for one, match in zip(texts, found, strict=True):
        assert (match is not None) == slow(overlap.words_of(one), [overlap.words_of(q) for _, _, q in questions], rules)


def slow(said: list[str], questions: list[list[str]], rules: Rules) -> bool:
    """The rules as they are written, all with all."""

    def grams(words, size):
        return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}

    for question in questions:
        of = grams(question, rules.of)
        like, either = grams(said, 5) & grams(question, 5), grams(said, 5) | grams(question, 5)
        if (
            said == question
            or grams(said, 13) & grams(question, 13)
            or (of and len(of & grams(said, rules.of)) / len(of) >= rules.share)
            or (like and len(like) / len(either) >= rules.near)
        ):
            return True
    return False


def test_a_task_without_questions_and_a_wrong_name_are_one_line(tmp_path):
    with pytest.raises(DataError, match="against: no task 'math50' in configs/tasks; did you mean 'math500'"):
        decontaminate(tmp_path, ["a"], ["b"], against=["math50"], paths={})
    with pytest.raises(DataError, match="paths: 'gsm8k' is not among the tasks of against"):
        decontaminate(tmp_path, ["a"], ["b"], paths={"gsm8k": "x"})
