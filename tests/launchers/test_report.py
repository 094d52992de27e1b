"""The report of a fabricated run: what it says, what it survives, and how it looks in a real browser."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from data_prep.core import pipeline
from launchers.report import format as figures
from launchers.report import page as report
from launchers.report import verdict
from launchers.report.sections import training
from launchers.run import spread
from tests.conftest import REPO
from tests.fakes.openai_server import Finish, OpenAIServer
from tests.launchers import made_up_run
from tests.launchers.made_up_run import CONTROL, HOSTILE, put


@pytest.fixture(scope="session")
def mini_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "min_o1" / "sft_short" / "20260131-093000-1a2b3c4d"
    made_up_run.mini_run(run)
    return run


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "full"
    made_up_run.full_run(run)
    return run


@pytest.fixture(scope="session")
def online_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "online"
    made_up_run.online_run(run, control=True)
    return run


@pytest.fixture(scope="session")
def page(mini_run):
    return report.build(mini_run).read_text()


class Outline(HTMLParser):
    """Tags, attributes and text of a page."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


def test_the_first_screen_says_what_came_of_it(page):
    words = Outline(page).words
    found = re.search(
        r"Accuracy on arithmetic rose, from ([\d.]+) % to ([\d.]+) %: \+([\d.]+) points \(95 % interval",
        words,
    )
    assert found
    before, after, change = map(float, found.groups())
    assert after - before == pytest.approx(change, abs=0.11)
    assert re.search(rf"points above the control {CONTROL} \([\d.]+ to [\d.]+\)\.", words)
    assert "not comparable with published ones" in words


def test_the_page_says_what_ran(page):
    words = Outline(page).words
    for said in (
        "min_o1/sft_short", "64 = 16 per process × 4 accumulated × 1 process", "136 planned, 136 done",
        "1,058", "llamafactory 0.9.5", "CPU, 16 GB", "a4c5585f0e1d2c3b4a59", "train.learning_rate=5e-4",
        "4,012 dropped: score below 1", "6,000 → 1,790 rows", "course short CoT", "vllm 0.32.0",
        "data · rejection_sampling 1 min 14 s peak 1.5 GB", "k = 4", "level 1",
        "llamafactory-cli train train/config.yaml", "python -m data_prep.evaluation.metrics evaluate --label after",
    ):  # fmt: skip
        assert said in words, said
    assert "events.jsonl: 1 unreadable line skipped." in words


def test_loss_of_a_resumed_run_is_drawn_once(mini_run):
    run = report.Results(mini_run)
    [own, control] = report.page(run)["training"]["runs"]
    assert (own[0], control[0]) == ("this run", CONTROL)
    assert own[2].endswith("in 136 steps")
    assert training.ends(run.losses["train"])[1] == pytest.approx(0.21, abs=0.03)
    assert len(report.Results(mini_run).losses["train"]) == 136


def test_full_scale_compares_four_tasks_with_published_numbers(full_run):
    words = Outline(report.build(full_run).read_text()).words
    assert "Accuracy rose on gsm8k (+" in words
    assert "not comparable" not in words
    assert "4 × H800, 80 GB each, NVLink" in words
    assert "64 = 4 per process × 4 accumulated × 4 processes" in words
    assert "expected of this recipe" in words
    assert words.count("published") > 2  # the plots carry them too


def test_other_peoples_text_stays_text(page):
    outline = Outline(page)  # asserts that tags nest
    assert not {"script", "img", "iframe", "object", "link"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    assert outline.words.count("document.title='owned'") >= 2, "the hostile text itself is shown"
    assert "{{7*7}}" in outline.words
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)


@pytest.mark.parametrize("name", [HOSTILE, "a$b$c_{x}", "--><b>", 'x" onload="y', "]]>", "\ud800"])
def test_hostile_names_in_plots_and_tables(tmp_path, name):
    scores = {"prompts": 3, "samples": 1, "mean": 50.0, "stderr": 20.0, "ci95": [9.0, 91.0]}
    result = {**scores, "by": {"level": {name: scores}}}
    for label in ("after", "before", name):
        path = tmp_path / f"eval/{['after', 'before', name].index(label)}.json"
        put(path, {"label": label, "tasks": {name: result, "other": result}})
    change = {"a": "after", "b": name, "task": name, "difference": 1.0, "ci95": [-1.0, 3.0], "prompts": 3}
    put(tmp_path / "compare.json", [change, {**change, "b": "before"}])
    put(tmp_path / "resolved.json", {"expect": {name: 50.0}, "reference": {name: {name: 1.0}}, "model": name})
    outline = Outline(report.build(tmp_path).read_text(encoding="utf-8"))
    assert not {"script", "img"} & set(outline.tags)
    assert not [attribute for attribute, _ in outline.attributes if attribute.startswith("on")]
    assert outline.tags.count("html") == outline.tags.count("style") == 1
    assert figures.visible(name) in outline.words


def test_the_page_needs_nothing_from_elsewhere(page):
    urls = [value for name, value in Outline(page).attributes if name in {"src", "href", "xlink:href", "action"}]
    assert all(value.startswith("#") for value in urls)
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page)


def test_ids_are_unique_and_references_resolve(page):
    outline = Outline(page)
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert references
    assert set(references) <= set(ids)


def test_colours_follow_the_scheme(page):
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.S):
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", svg)), "a fixed colour"


def test_the_same_directory_gives_the_same_bytes(mini_run, page):
    assert report.build(mini_run).read_text() == page


def test_an_empty_directory_has_a_report(tmp_path):
    words = Outline(report.build(tmp_path).read_text()).words
    assert "Not in this run directory: data, a training log, an evaluation, timings." in words
    assert "Nothing has been evaluated after training" in words


def test_a_run_that_only_made_data_has_a_report(tmp_path):
    made_up_run.facts(tmp_path)
    made_up_run.data(tmp_path)
    words = Outline(report.build(tmp_path).read_text()).words
    assert "Not in this run directory: a training log, an evaluation, timings." in words
    assert "4,012 dropped: score below 1" in words


def test_samples_and_pairs_are_drawn(tmp_path):
    made_up_run.facts(tmp_path)
    rows = [
        {"id": f"{prompt}/{at}", "score": at / 4, "outcome": "scored", "meta": {"prompt_id": str(prompt)}}
        for prompt in range(12)
        for at in range(prompt % 6)
    ]
    pairs = [{"completion": "ab" * at, "rejected": "abc", "meta": {"margin": at / 9}} for at in range(1, 10)]
    (tmp_path / "spreads").mkdir()
    told = {"samples": spread.of_samples(rows), "pairs": spread.of_pairs(pairs)}
    (tmp_path / "spreads" / "00-mini_dpo.json").write_text(json.dumps(told))
    text = report.build(tmp_path).read_text()
    assert "10 questions, 30 samples" in Outline(text).words
    assert "9 pairs, mean margin 0.56" in Outline(text).words
    assert text.count("<figcaption><b>") == 4
    for title in ("Pass rate", "Spread", "Margin", "Length"):
        assert f'aria-label="{title}"' in text


def test_a_mixture_labels_and_cost_are_told(tmp_path):
    made_up_run.facts(tmp_path)
    rows = [{"prompt": f"{source} {n}", "source": source} for source in ("apps", "taco", "algebra") for n in range(20)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {"code": {"sources": ["apps", "taco"], "n": 30}, "math": {"sources": {"algebra": 10}}}
    steps = [
        {"name": "load", "kind": "load", "params": {"path": "in.jsonl"}},
        {"name": "mix", "kind": "mix", "params": {"parts": parts, "seed": 1}, "inputs": ["load"]},
    ]
    document = {"name": "x", "base": str(tmp_path), "cache": str(tmp_path / "steps"), "steps": steps}
    pipeline.run(pipeline.Spec.model_validate(document))
    folder = tmp_path / "manifests" / "00-x"
    folder.mkdir(parents=True)
    mixed = next((tmp_path / "steps").glob("mix-*/manifest.json")).read_text()
    (folder / "01-mix.json").write_text(mixed)
    labels = {"labelled": 50, "unlabelled": 10}
    cost = {"answers": 70, "prompt_tokens": 21000, "completion_tokens": 1400, "usd": 0.5}
    told = {**json.loads(mixed), "kind": "label", "name": "label", "counts": labels, "cost": cost}
    (folder / "00-label.json").write_text(json.dumps(told))
    text = report.build(tmp_path).read_text()
    words, counts = Outline(text).words, json.loads(mixed)["counts"]
    cells = [re.findall("<td>(.*?)</td>", line) for line in text.splitlines() if line.startswith("<tr><td>")]
    assert cells[:2] == [["code", "", "30", "30", "75.0"], ["", "apps", "", str(counts["code: apps"]), cells[1][4]]]
    assert cells[3:5] == [["math", "", "10", "10", "25.0"], ["", "algebra", "10", "10", "25.0"]]
    assert "50 labelled, 10 unlabelled" in words
    assert "0.50 dollars, 70 answers, 21,000 prompt tokens, 1,400 completion tokens" in words


def test_whose_judgement_of_difficulty_was_used_is_told(tmp_path):
    def reply(request):
        if "difficulty" not in request.prompt:
            return Finish(content="\\boxed{2}")
        return Finish(content='{"difficulty": 4}' if "1+1? (0)" in request.prompt else "It is hard.")

    rows = [{"id": f"r{n}", "prompt": f"1+1? ({n})", "answer": "2"} for n in range(5)]
    put(tmp_path / "in.jsonl", rows)
    with OpenAIServer(reply) as server:
        asked = {"model": "m", "base_url": server.url}
        steps = [
            ("load", {"path": "in.jsonl"}),
            ("label", {**asked, "tries": 1}),
            ("generate", {**asked, "n": 3}),
            ("score", {"reward": "math"}),
            ("difficulty", {"fill": "missing"}),
        ]
        names = [kind for kind, _ in steps]
        chain = [
            pipeline.StepSpec(name=kind, kind=kind, params=params, inputs=tuple(names[at - 1 : at] if at else ()))
            for at, (kind, params) in enumerate(steps)
        ]
        spec = pipeline.Spec(name="x", base=tmp_path, cache=tmp_path / "steps", steps=tuple(chain))
        pipeline.run(spec)
        made = [(pipeline.find(spec, name) / "manifest.json").read_text() for name in names]
    made_up_run.facts(tmp_path)
    for at, text in enumerate(made):
        put(tmp_path / "manifests" / "00-x" / f"{at:02}-{names[at]}.json", json.loads(text))
    words = Outline(report.build(tmp_path).read_text()).words
    assert (
        "Difficulty: 12 samples by their question's pass rate, 3 by a model's label (4 of 5 labels could not be read)."
    ) in words
    (tmp_path / "manifests" / "00-x" / "04-difficulty.json").unlink()
    assert "Difficulty:" not in Outline(report.build(tmp_path).read_text()).words


PARTS = (
    "run.json", "plan.json", "resolved.json", "compare.json", "events.jsonl", "train/trainer_log.jsonl",
    "eval/before.json", "eval/after.json", "eval/after.samples.jsonl",
    "manifests/rejection_sampling/03-right.json",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_any_part_may_be_missing_or_damaged(mini_run, tmp_path, part, damage):
    run = tmp_path / "run"
    shutil.copytree(mini_run, run, ignore=shutil.ignore_patterns("checkpoint-*"))
    path = run / part
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if damage == "gone":
        path.unlink()
    words = Outline(report.build(run).read_text()).words
    if damage == "torn":
        assert f"{part} is not valid JSON" in words or f"{part}: 1 unreadable line skipped." in words


def test_files_that_are_no_text_at_all(mini_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(mini_run, run, ignore=shutil.ignore_patterns("checkpoint-*"))
    for part in PARTS:
        (run / part).write_bytes(b"\xff\xfe\x00" + bytes(range(256)))
    words = Outline(report.build(run).read_text()).words
    assert all(part in words for part in PARTS)


def test_a_loss_that_is_not_a_number_is_said(tmp_path):
    put(
        tmp_path / "train/trainer_log.jsonl",
        [{"current_steps": i, "loss": math.nan if i > 3 else 1.0} for i in range(10)],
    )
    assert "loss of train was not finite at 6 of 10 logged steps." in Outline(report.build(tmp_path).read_text()).words


def test_a_failed_phase_says_why(tmp_path):
    made_up_run.phase(tmp_path, "train", "", 12, 900, status=1, error="CUDA out of memory (exit 1)")
    assert "CUDA out of memory (exit 1)" in Outline(report.build(tmp_path).read_text()).words


def test_no_such_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such run directory"):
        report.build(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "tokens", "said"),
    [
        ([1.0, 3.0], None, "Accuracy on t rose, from 10.0 % to 12.0 %: +2.0 points (95 % interval 1.0 to 3.0)."),
        ([-1.0, 5.0], None, "Accuracy on t did not measurably change, from 10.0 %"),
        ([-5.0, -1.0], None, "Accuracy on t fell, from 10.0 %"),
        ([1.0, 3.0], [-12.0, -8.0], " Answers are 10.0 % shorter (8.0 to 12.0)."),
        ([1.0, 3.0], [3.0, 5.0], " Answers are 4.0 % longer (3.0 to 5.0)."),
        ([1.0, 3.0], [-9.0, 1.0], "interval 1.0 to 3.0)."),
    ],
)
def test_the_verdict_follows_the_intervals(tmp_path, change, tokens, said):
    for label, mean in (("before", 10.0), ("after", 12.0)):
        put(
            tmp_path / f"eval/{label}.json",
            {"label": label, "tasks": {"t": {"mean": mean, "ci95": [5, 15], "prompts": 9}}},
        )
    entry = {
        "a": "after",
        "b": "before",
        "task": "t",
        "difference": sum(change) / 2,
        "ci95": change,
        "prompts": 9,
        **({"tokens": {"change": sum(tokens) / 2, "ci95": tokens}} if tokens else {}),
    }
    put(tmp_path / "compare.json", [entry])
    text = verdict.verdict(report.Results(tmp_path))
    assert text.startswith(said) or text.endswith(said)


def test_figures():
    times = {None: "–", 4.21: "4.2 s", 59.7: "1 min 00 s", 284: "4 min 44 s", 11520: "3 h 12 min"}
    assert {seconds: figures.clock(seconds) for seconds in times} == times
    assert [figures.signed(x) for x in (None, 21.34, -3.21, -0.01)] == ["–", "+21.3", "−3.2", "0.0"]
    assert figures.span([-1.26, 3]) == "−1.3 to 3.0"
    assert figures.count(3052) == "3,052"


def test_matplotlib_waits_for_a_plot(tmp_path):
    code = (
        "import sys, pathlib; from launchers.report import page; page.build(pathlib.Path(sys.argv[1]));"
        "print('matplotlib' in sys.modules)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == "False"


def chromium(*arguments, profile):
    """Run headless Chromium and return what it prints."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.fail("the report is checked in a real browser: apt-get install chromium")
    quiet = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--hide-scrollbars",
    ]  # fmt: skip
    command = [browser, *quiet, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


MEASURE = """
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement, width = root.clientWidth;
    const inside = e => e.closest(".scroll, details:not([open])") !== null;
    const outside = [...page.body.querySelectorAll("*")].filter(e => {
      const box = e.getBoundingClientRect();
      return box.width > 0 && box.right > width + 1 && !inside(e);
    }).map(e => e.tagName + "." + e.getAttribute("class"));
    const plots = [...page.querySelectorAll("svg")].filter(e => e.getBoundingClientRect().width > 0).length;
    const tables = [...page.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth).length;
    return {width, scroll: root.scrollWidth, outside: outside.slice(0, 5), plots, tables, title: page.title};
  });
  const out = document.createElement("output");
  out.textContent = encodeURIComponent(JSON.stringify(found));
  document.body.append(out);
});
</script>
"""


@pytest.mark.parametrize(("kind", "plots"), [("mini", 4), ("full", 6), ("online", 14)])
def test_no_sideways_scrolling_on_phone_or_desktop(request, tmp_path, kind, plots):
    run = request.getfixturevalue(f"{kind}_run")
    source = html.escape(report.build(run).read_text())
    frames = "".join(
        f'<iframe width="{w}" height="800" style="border:0" srcdoc="{source}"></iframe>' for w in (320, 390, 1280)
    )
    page = tmp_path / "frames.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{frames}{MEASURE}")
    dom = chromium("--dump-dom", page.as_uri(), profile=tmp_path / "profile")
    found = json.loads(unquote(re.search(r"<output>(.*?)</output>", dom)[1]))
    assert [frame["width"] for frame in found] == [320, 390, 1280]
    for frame in found:
        assert frame["scroll"] <= frame["width"], frame
        assert frame["outside"] == [], frame
        assert frame["tables"] == 0 or frame["width"] < 390, "a table scrolls sideways"
        assert frame["plots"] == plots, "each plot is shown once, for this width"
        assert "owned" not in frame["title"]
