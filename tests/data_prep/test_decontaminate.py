"""Training rows that repeat a benchmark question are dropped with both texts; similar questions are kept."""

import re

import making
import pytest
from problems import BENCHMARK, OTHERS, REPEATS

from data_prep.core import pipeline
from data_prep.errors import DataError
from data_prep.text.overlap import Benchmark
from data_prep.text.tokens import tokens, words

QUESTIONS = [("math500", name, text) for name, text in BENCHMARK.items()]
LONG = [name for name, text in BENCHMARK.items() if len(re.sub(r"\[asy\].*", "", text).split()) >= 40]


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return Benchmark(QUESTIONS)


def repeated(benchmark: Benchmark, text: str) -> str | None:
    match = benchmark.matches([text])[0]
    return match.id if match else None


@pytest.mark.parametrize("case", range(len(REPEATS)))
def test_reworded_reformatted_and_halved_questions_are_repeats(benchmark, case):
    name, text = REPEATS[case]
    assert repeated(benchmark, text) == name


@pytest.mark.parametrize("case", range(len(OTHERS)))
def test_the_same_template_with_other_numbers_or_words_is_not_a_repeat(benchmark, case):
    assert repeated(benchmark, OTHERS[case]) is None


TURNED = [
    ("Given that $3x + 7 = 25$ and $y = 2x - 1$, find the value of $x + y$.",
     "Find the value of $x + y$, given that $3x + 7 = 25$ and $y = 2x - 1$."),
    ("The sides of triangle $PQR$ have lengths 13, 14 and 15. What is the radius of its inscribed circle?",
     "What is the radius of the inscribed circle? The sides of triangle $PQR$ have lengths 13, 14 and 15."),
    ("What is the value of $a^2 + b^2$ if $a + b = 12$ and $ab = 35$?",
     "If $a + b = 12$ and $ab = 35$, what is the value of $a^2 + b^2$?"),
    ("已知一个长方形的周长是36厘米，长是宽的2倍，求这个长方形的面积。",
     "求这个长方形的面积。已知一个长方形的周长是36厘米，长是宽的2倍。"),
]  # fmt: skip


@pytest.mark.parametrize("pair", TURNED)
def test_clauses_in_another_order_are_a_repeat(pair):
    for question, text in (pair, pair[::-1]):
        known = Benchmark([*QUESTIONS, ("t", "it", question)])
        assert repeated(known, text) == "it"
        for number in re.finditer(r"\d+", text):
            assert repeated(known, text[: number.start()] + str(int(number[0]) + 1) + text[number.end() :]) is None


CANDIES = "小明有15颗糖，小红比小明多7颗，小明每天吃3颗。小明的糖可以吃几天？"
CHINESE = {"小明 小红": ("小刚 小丽", "小红 小明"), "张伟 李娜": ("王强 刘敏", "赵丽 孙刚")}


@pytest.mark.parametrize("given", CHINESE)
def test_other_names_in_chinese_are_a_rewording_where_the_numbers_agree(given):
    def named(names: str) -> str:
        return re.sub("小[明红]", lambda name: names.split()[name[0] == "小红"], CANDIES)

    known = Benchmark(
        [*QUESTIONS, ("t", "it", named(given)), ("t", "time", "一辆汽车3小时行180千米，15小时行多少千米？")]
    )
    for names in CHINESE[given]:
        first, second = names.split()
        assert repeated(known, named(names)) == "it"
        assert repeated(known, named(names).replace("7", "8")) is None
        assert repeated(known, named(names).replace(f"{first}的糖", f"{second}的糖")) is None


NEGATED = [
    ("单开甲管6小时可以注满水池，单开乙管8小时可以注满水池。两管同时打开，几小时可以注满？",
     "8小时可以注满", "8小时可以放完"),
    ("商店上午买进35箱苹果，下午又买进28箱苹果，现在一共有多少箱苹果？", "下午又买进", "下午又卖出"),
    ("How many integers between 100 and 200 are divisible by 7?", "divisible", "not divisible"),
    ("What is the largest integer less than $\\sqrt{50}$?", "less than", "less than or equal to"),
    ("Is the function $f(x)=3^{x^2-3}-|x|$ even, odd or neither?", "|x|", "x"),
    ("How many ways are there to seat 8 people if 2 of them cannot sit together?", "cannot", "can"),
    ("A box holds 5 red and 3 blue balls. Two are drawn without replacement. Find $P(\\text{both red})$.",
     "without", "with"),
    ("A bakery sells 36 rolls in the first 3 hours and 15 rolls in the last 2. How many rolls an hour is that?",
     "hours", "days"),
    ("某班有40名学生，其中25人会游泳，18人会骑车，两样都不会的有5人，问两样都会的有多少人？", "都不会", "都会"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "part", "other"), NEGATED)
def test_a_negation_or_an_opposite_is_another_question(text, part, other):
    changed = text.replace(part, other, 1)
    for question, row in ((text, changed), (changed, text)):
        known = Benchmark([*QUESTIONS, ("t", "it", question)])
        assert repeated(known, row) is None
        assert repeated(known, f"{question} Do not use a calculator.") == "it"


def test_spellings_of_a_negation_and_an_absolute_value_are_the_same():
    known = Benchmark([("t", "it", NEGATED[3][0]), ("t", "abs", NEGATED[2][0])])
    assert repeated(known, NEGATED[3][0].replace("cannot", "can't")) == "it"
    assert repeated(known, NEGATED[2][0].replace("|x|", "\\left\\lvert x\\right\\rvert")) == "abs"


def renamed(text: str) -> str:
    """With x as t and a as p, in formulas only."""
    rename = {"x": "t", "a": "p"}
    return re.sub(
        r"\$[^$]*\$",
        lambda formula: re.sub(r"\\[a-zA-Z]+|[xa]", lambda name: rename.get(name[0], name[0]), formula[0]),
        text,
    )


def reformatted(text: str) -> str:
    text = re.sub(r"\$([^$]+)\$", r"\\( \1 \\)", text) if "\\" in text else text
    return text.replace(r"\frac", r"\dfrac").replace(r"\left( ", r"\bigl(").replace("+", " + ").replace(". ", ".\n")


def with_superscripts(text: str) -> str:
    raised = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"\^\{?(\d+)\}?", lambda power: power[1].translate(raised), text)


PLANTED = {
    "superscripts": with_superscripts,
    "powers as in Python": lambda text: text.replace("^", "**"),
    "verbatim": lambda text: text,
    "renamed": renamed,
    "reformatted": reformatted,
    "among other sentences": lambda text: f"I found this in an old contest book. {text} Explain each of your steps.",
    "in a long text": lambda text: "\n".join([*OTHERS[10:14], text, *OTHERS[20:24]]),
}


@pytest.mark.parametrize("how", PLANTED)
def test_copies_of_every_question_are_found(benchmark, how):
    missed = [
        name for name, text in BENCHMARK.items()
        if not (how == "in a long text" and len(words(text)) < 5) and repeated(benchmark, PLANTED[how](text)) != name
    ]  # fmt: skip
    assert missed == []


def test_the_first_half_of_a_long_question_is_found(benchmark):
    assert len(LONG) >= 5
    for name in LONG:
        half = BENCHMARK[name].split()[: len(BENCHMARK[name].split()) // 2]
        assert repeated(benchmark, " ".join(half)) == name


WITHOUT_SPACES = {
    "zh": "在一次数学竞赛中，共有二十道选择题，评分标准是：答对一题得5分，不答得0分，答错一题扣2分。小华参加了"
    "这次竞赛，他一共得了79分，并且已知他没有回答的题目数量恰好是答错的题目数量的2倍。请问小华在这次竞赛中答对了多少道题，"
    "答错了多少道题，又有多少道题没有回答？",
    "ja": "太郎さんは毎朝8時に家を出発して、3000メートル離れた学校に歩いて通っています。ある日、太郎さんが家を出発"
    "してから15分後に、お母さんが太郎さんの忘れ物に気づき、自転車で太郎さんを追いかけました。太郎さんの歩く速さは毎分60"
    "メートル、お母さんの自転車の速さは毎分210メートルです。お母さんが太郎さんに追いつくのは、家から何メートル離れた地点ですか。",
}


@pytest.mark.parametrize("name", WITHOUT_SPACES)
def test_the_first_half_of_a_long_question_without_spaces_is_found(name):
    known = Benchmark([*QUESTIONS, *(("t", *each) for each in WITHOUT_SPACES.items())])
    half = WITHOUT_SPACES[name][: len(WITHOUT_SPACES[name]) // 2]
    assert repeated(known, half) == name
    for number in re.finditer(r"\d+", half):
        assert repeated(known, half[: number.start()] + str(int(number[0]) + 1) + half[number.end() :]) is None
    start = half[: len(half) // 3]
    assert repeated(known, f"{start}他今年13岁，有3个哥哥和2个妹妹，问他家一共有多少个孩子？") is None


def test_a_shared_beginning_is_not_a_repeat(benchmark):
    meadow = BENCHMARK["fence"].split(" Posts")[0]
    assert repeated(benchmark, f"{meadow} He plants a tree in each corner of the meadow. How many meters?") is None


@pytest.mark.parametrize("name", BENCHMARK)
def test_a_changed_number_makes_another_question(benchmark, name):
    """A question with any of its numbers changed is another question."""
    text = re.sub(r"\[asy\].*", "", BENCHMARK[name])
    for number in re.finditer(r"\d+", text):
        changed = text[: number.start()] + str(int(number[0]) + 1) + text[number.end() :]
        assert repeated(benchmark, changed) is None, changed


def test_shared_instructions_are_not_evidence():
    instruction = (
        "You are given a problem of a mathematics competition for pupils. Think about it carefully, write your "
        "solution step by step in complete sentences, check each step, and put the final answer at the end in a box."
    )
    known = Benchmark([("t", name, f"{instruction}\n{text}") for name, text in BENCHMARK.items()])
    assert [match for match in known.matches([f"{instruction}\n{text}" for text in OTHERS]) if match] == []
    assert [match and match.id for match in known.matches(list(BENCHMARK.values()))] == list(BENCHMARK)


def test_a_benchmark_of_a_single_question_is_enough():
    for name, text in BENCHMARK.items():
        known = Benchmark([("t", name, text)])
        assert repeated(known, f"Solve this: {text}") == (name if len(words(text)) > 1 else None)
        assert [match for match in known.matches(OTHERS) if match] == []


def test_tokens_are_words_numbers_operators_and_variables():
    formula = (
        r"Let $g(x)=\dfrac{4x+1}{x-3}$ \text{for} $x\ne 3$; find $\left\lfloor g(10{,}000)\right\rfloor$ at 60^\circ."
    )
    assert " ".join(tokens(formula)) == (
        "let ·g ·x = 4 ·x + 1 / ·x - 3 for ·x != 3 find floor ·g 10000 at 60"
    )  # fmt: skip
    assert words(formula) == ["let", "4", "1", "3", "for", "3", "find", "floor", "10000", "at", "60"]
    assert words("A[asy]draw((0,0)--(3,4));[/asy]rea of $ABCD$") == ["rea", "of", "abcd"]
    assert tokens("99²+2³⁵ 4") == tokens("$99^2+2^{35}$ 4") == tokens("99**2 + 2**35 4")
    assert tokens("101₂ and 1½") == ["101", "2", "and", "1", "1", "/", "2"]
    assert tokens("三角形の面積は５") == ["3", "角", "形", "の", "面", "積", "は", "5"]
    assert tokens("a three-digit number and a half-line") == tokens("A 3-digit number and a half line")


def decontaminate(folder, prompts: list[str], completions: list[str] | None = None, **params):
    rows = [{"id": name, "problem": text, "answer": "1"} for name, text in BENCHMARK.items()]
    making.write_jsonl(folder / "bench.jsonl", rows)
    completions = completions or ["c"] * len(prompts)
    rows = [
        {"id": f"r{n}", "prompt": prompt, "completion": completion}
        for n, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]
    making.write_jsonl(folder / "in.jsonl", rows)
    given = {"against": ["math500"], "paths": {"math500": "bench.jsonl"}, **params}
    items = ("load", {"path": "in.jsonl"}), ("decontaminate", given)
    manifest, kept = making.run(folder, *items)
    return manifest, [row["id"] for row in kept], pipeline.find(making.spec(folder, *items))


def test_drops_name_the_row_and_the_question_with_both_texts(tmp_path):
    manifest, kept, directory = decontaminate(tmp_path, [OTHERS[0], REPEATS[0][1], BENCHMARK["sum"]])
    assert kept == ["r0"]
    assert manifest.drops == {"repeats math500": 2}
    first, second = making.lines(directory / "shards" / "00000.drops.jsonl")
    assert (first["row_id"], second["row_id"]) == ("r1", "r2")
    assert first["detail"].split("\n") == [
        "math500/letters: 78% of the question", f"row: {REPEATS[0][1]}", f"question: {BENCHMARK['letters']}"
    ]  # fmt: skip
    assert second["detail"].startswith("math500/sum: 100% of the question\n")


def test_fields_are_compared_separately(tmp_path):
    completions = ["The answer is 85.", f"{OTHERS[30]} So, to the question: {BENCHMARK['trains']} Let us see."]
    assert decontaminate(tmp_path, OTHERS[:2], completions)[1] == ["r0", "r1"]
    manifest, kept, _ = decontaminate(tmp_path, OTHERS[:2], completions, fields=["prompt", "completion"])
    assert kept == ["r0"]
    shown = manifest.examples["repeats math500"][0]["detail"].split("\n")[1]
    assert "Stations $A$ and $B$" in shown, "the part of a long text that repeats the question"


def test_errors_say_what_to_change(tmp_path):
    with pytest.raises(DataError, match="against: no task 'math50' in configs/tasks; did you mean 'math500'"):
        decontaminate(tmp_path, ["b"], against=["math50"], paths={})
    with pytest.raises(DataError, match="paths: 'gsm8k' is not among the tasks of against"):
        decontaminate(tmp_path, ["b"], paths={"gsm8k": "x"})
    for name, value in {"any_of": 13, "of": 8, "share": 0.7, "near": None}.items():
        with pytest.raises(DataError, match=f"parameter '{name}' was removed: use 'overlap_threshold'"):
            decontaminate(tmp_path, ["b"], **{name: value})


TOM = "Tom has 3 boxes with 12 apples each and gives 7 of his apples to Mary. How many apples does Tom have left?"
PERSONS = [
    ("t", str(n), f"Tom, Ann and Mary walk {n} miles a day. How many miles does Tom walk in {n + 3} days?")
    for n in range(20, 36)
]


@pytest.mark.parametrize("names", [("Ann", "Mary"), ("Mary", "Tom"), ("Zoe", "Mary"), ("Zoe", "Ingrid")])
@pytest.mark.parametrize("others", [PERSONS, QUESTIONS])
def test_a_changed_name_is_a_rewording_if_numbers_agree(names, others):
    known = Benchmark([*others, ("t", "it", TOM)])
    swapped = re.sub("Tom|Mary", lambda name: names[name[0] == "Mary"], TOM)
    assert repeated(known, swapped) == "it"
    for number in ("3", "12", "7"):
        assert repeated(known, swapped.replace(number, "5", 1)) is None
    assert repeated(known, swapped.replace(f"does {names[0]}", f"does {names[1]}")) is None
