"""Hostile answers: each gets a typed outcome in time, runs nothing, and leaves the workers fit for the next one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rewards
from rewards import extract
from rewards.math import choice, equivalence, exact, latex, parts, quantity

MARGIN = 60.0  # seconds of wall time over the deadline, which counts CPU time: a busy machine may pause us

CODE = [
    r"exec(\"open('F','w')\")", "exec(\"open('F','w')\")", "__import__('os').system('touch F')",
    "().__class__.__base__.__subclasses__()[100].__init__.__globals__['sys'].modules['os'].system('touch F')",
    r"\text{__import__('os')._exit(0)}", "lambda: open('F','w')", "eval(compile('open(\"F\",\"w\")','','exec'))",
    "`x`; touch F", "$(touch F)", "'; touch F; '", "{{7*7}}", "${jndi:ldap://x/F}", "%n%n%s",
    "!!python/object/apply:os.system ['touch F']", "cos\nsystem\n(S'touch F'\ntR.", "Symbol('x').__class__",
    "sympify('open(\"F\",\"w\")')", "x.func.__globals__", "print(1)", r"\input{/etc/passwd}", r"\write18{touch F}",
    r"\immediate\write18{touch F}", r"\openout\F=F", r"\catcode`\@=11", r"\def\x{\x\x}\x", r"\newcommand{\x}{\x\x}\x",
    r"\let\a\b\a", r"\csname F\endcsname", r"\usepackage{x}", r"\directlua{os.exit()}",
]  # fmt: skip
BIG = [
    "10^{10^{10}}", "9^{9^{9^9}}", "9^9^9^9^9", "99999^{99999}", "(99999^{9999})^{9999}", "10^{-999999999}",
    "2^{99999999}", "100000!", "(((10!)!)!)!", "3000!", "3000!^{3000}", "9!!!!!!!!!", r"\binom{10^9}{5\cdot 10^8}",
    r"\binom{100000}{50000}", "9" * 5000, "9" * 1_000_000, "0." + "9" * 1_000_000, "9" * 200 + "x", "1" * 990,
    "1e999999999", "1e-999999999", r"1 \times 10^{999}", r"0.\overline{" + "3" * 190 + "}",
    r"\lfloor 10^{1000}\pi\rfloor", r"\zeta(3)^{\zeta(3)^{999}}", "99999^{9999}_{36}", "z" * 60 + "_{36}",
    r"\sqrt[99999]{2}", r"2^{0.00000001}^{99999}", r"e^{e^{e^{e^{e^{e}}}}}", "7" * 150 + "!", r"\pi^{\pi^{\pi^{\pi}}}",
    "1/" * 400 + "1",
]  # fmt: skip
DEEP = [
    "(" * 400 + "x" + ")" * 400, "{" * 400 + "x" + "}" * 400, "{" * 100_000 + "x" + "}" * 100_000, "(" * 100_000,
    "}" * 100_000, r"\frac{1}{" * 200 + "x" + "}" * 200, r"\sqrt{" * 23 + "2" + "}" * 23,
    r"\{" * 20 + "1" + r"\}" * 20, "[(" * 12 + "1" + ")]" * 12, r"\text{" * 150, r"\left(" * 150, r"\boxed{" * 100_000,
    r"\boxed{" * 20 + "5" + "}" * 20, "|" * 900, "-" * 990 + "1", "5" + "%" * 900, r"\$" * 400 + "5", "(5)" * 300,
    r"x\in " * 150 + "5", "x=" * 400 + "5", r"\begin{pmatrix}" * 40 + "5" + r"\end{pmatrix}" * 40,
    "f(" * 23 + "x" + ")" * 23, "a_{" * 23 + "1" + "}" * 23, r"\lnot" * 150, "5" + "'" * 900, "5" + "°" * 900,
]  # fmt: skip
HARD = [
    "(x+y+z+w)^{500}", "(x+1)^{99999}", "*".join(["(x+1)"] * 150), "+".join(["x"] * 490),
    r"\cup".join(["(1,2)"] * 100), r"\sum_{k=1}^{1000000000}\frac{1}{k^3}", r"\prod_{k=1}^{99999999}k",
    r"\int_0^1 x^{x^{x}}dx", r"\lim_{x\to 0}\frac{\sin(\sin(\sin x))-x}{x^{30}}",
    r"\int \frac{e^{x^2}\sin(x^3)}{\log(x+\sqrt{x})} dx", "x^{1000}-1=0", "x^5-x+1=0",
    r"\sin(\cos(\tan(\sin(\cos(\tan(x^7+y^7))))))=\sin(y)", r"\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x}}}}}",
    r"\log_{\log_{\log_2 3} 5} 7", r"\begin{pmatrix}" + "&".join(["x"] * 200) + r"\end{pmatrix}",
    r"\begin{pmatrix}" + r"\\".join(["&".join(["x+1"] * 12)] * 12) + r"\end{pmatrix}^{-1}",
    r"\det\begin{pmatrix}" + r"\\".join(["&".join("abcdefg")] * 7) + r"\end{pmatrix}", ",".join(map(str, range(250))),
    ",".join(f"x+{i}" for i in range(60)), r"\pm" * 300, ",".join([r"\pm 1"] * 60),
    r"1 \pm 2 \pm 3 \pm 4 \pm 5 \pm 6 \pm 7 \pm 8 \pm 9",
]  # fmt: skip
ODD = [
    "٣" * 50, "𝟙𝟚", "５", "Ⅴ", "⑤", "5\u200b", "\u202e5", "5\u0336", "\x00", "5\x00", "\ud800", "\udfff5", "\ufeff5",
    "NaN", "nan", "inf", "Infinity", "-inf", "1/0", r"\frac{5}{0}", r"\frac{0}{0}", "None", "null", "True", "\\" * 999,
    "," * 900, "=" * 900, "e" * 999, "a_" * 400, "_" * 900, "^" * 900, "&" * 900, "5 " + "a" * 900 + "!",
    "5 " + "ab " * 300 + "!", "1!" * 400, " " * 1_000_000, "\n" * 100_000, "\t5\t" * 300, "🍎" * 900,
]  # fmt: skip
ANSWERS = [*CODE, *BIG, *DEEP, *HARD, *ODD]


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path: Path, monkeypatch: Any) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())
    assert not Path("/F").exists()


def graded(reward: rewards.Reward, gold: str, answer: str, deadline: float) -> rewards.Score:
    began = time.monotonic()
    score = reward.score({"answer": gold}, rf"\boxed{{{answer}}}")
    took = time.monotonic() - began
    assert took < deadline + MARGIN, (answer[:40], took, score)
    assert score.value == 0.0, answer[:40]
    assert score.outcome in ("scored", "bad_format", "no_answer", "timeout"), (answer[:40], score)
    return score


def test_there_are_enough_of_them() -> None:
    assert len(set(ANSWERS)) == len(ANSWERS) > 150


@pytest.mark.parametrize("kind", ["CODE", "BIG", "DEEP", "HARD", "ODD"])
@pytest.mark.parametrize(
    ("gold", "deadline"),
    [(r"\sqrt{2}+x", 2.0), *(pytest.param(gold, 0.5, marks=pytest.mark.full) for gold in ("17", "[2,5)"))],
)
def test_math(gold: str, deadline: float, kind: str) -> None:
    reward = rewards.load("math", deadline=deadline, workers=1)
    reward.score({"answer": "x+1"}, r"\boxed{1+x}")  # workers are up
    timeouts = sum(graded(reward, gold, answer, deadline).outcome == "timeout" for answer in globals()[kind])
    assert timeouts <= 8
    assert reward.score({"answer": "y+1"}, r"\boxed{1+y}").value == 1.0  # the workers are fit


@pytest.mark.parametrize(
    "reward", [rewards.load("choice"), rewards.load("exact"), rewards.load("numeric")], ids=lambda reward: reward.name
)
def test_rewards_that_need_no_worker(reward: rewards.Reward) -> None:
    for answer in ANSWERS:
        answer = answer[:100_000]
        gold = "D" if reward.name == "choice" else "17"
        for text in (rf"\boxed{{{answer}}}", answer, f"The answer is {answer}", f"#### {answer}", f"**{answer}**"):
            for _ in range(3):  # a busy host may count its own time as ours
                began = time.process_time()
                score = reward.score({"answer": gold}, text)
                if (seconds := time.process_time() - began) < 1.0:
                    break
            assert seconds < 1.0, answer[:40]
            assert score.value == 0.0
            assert score.outcome in ("scored", "bad_format", "no_answer"), (answer[:40], score)


@pytest.mark.full
def test_a_hostile_gold_is_an_outcome_too() -> None:
    reward = rewards.load("math", deadline=0.5, workers=1)
    for gold in (*BIG, *DEEP, *ODD):
        began = time.monotonic()
        assert reward.score({"answer": gold}, r"\boxed{x+17}").outcome in rewards.OUTCOMES
        assert time.monotonic() - began < 0.5 + MARGIN, gold[:40]


ATOMS = [
    *"aA10\n \t,.({[)}]\\^_'$*=<|!-+e%/°²é&", "1,", "1 ", "a ", "A ", r"\a", r"\frac", r"\frac{1}", r"\text{",
    r"\text{a}", r"\left", "^{", "^1", "_{", r"\$", "**", "**a", r"\le ", "1!", "1^", "+-", "1.", ".1", "1e", "1/",
    r"\boxed{", r"\fbox{a", r"\framebox[", "answer ", "answer is ", "the ", "option ", "C is ", "A, ", "A or ",
    "#### ", "I choose ", r"\circ", r"^\circ", r"\begin{matrix}", r"\\[", r"\hline", "or ", "U ", "a,", "a(",
    r"\angle ", "a_1", "x=", r"\{a ", r"\{a|", "in ", "m/", "per ", r"\cup ", r"\pm ",
]  # fmt: skip
OURS = {
    pattern.pattern: pattern
    for module in (choice, equivalence, exact, extract, latex, parts, quantity)
    for pattern in vars(module).values()
    if isinstance(pattern, re.Pattern)
}


@pytest.mark.parametrize("pattern", OURS.values(), ids=range(len(OURS)))
def test_no_regex_of_ours_is_catastrophic(pattern: re.Pattern[str]) -> None:
    for atom in ATOMS:
        text = ("C answer is 1 " + atom * latex.MAX_CHARS)[: latex.MAX_CHARS] + "\x00"
        began = time.process_time()
        pattern.fullmatch(text)
        pattern.search(text)
        pattern.sub("", text)
        assert time.process_time() - began < 0.5, (pattern.pattern, atom)


@pytest.mark.parametrize("atom", ATOMS)
def test_long_texts_take_time_in_proportion(atom: str) -> None:
    text = (atom * 100_000)[:100_000]
    for name, params in (("math", {"fallbacks": list(extract.FALLBACKS)}), ("choice", {}), ("numeric", {})):
        reward = rewards.load(name, **params)
        began = time.process_time()
        for completion in (text, rf"\boxed{{{text}}}", "the answer is " + text):
            reward.score({"answer": "C" if name == "choice" else "17"}, completion)
        assert time.process_time() - began < 2.0, name
