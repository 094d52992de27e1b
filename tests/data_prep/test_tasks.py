"""Task files: errors are lines with the file, the key and a suggestion."""

import pytest

from data_prep.errors import DataError
from data_prep.sources import tasks

GOOD = "about: sums\nstep: {curriculum: {split: test, levels: {2: 5}}}\nreward: {name: math}\n"


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Writes a task file and returns its error lines without the file's name."""
    monkeypatch.setattr(tasks, "TASKS", tmp_path)

    def read(content: str | bytes) -> list[str]:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            tasks.read("mine")
        except DataError as error:
            lines = str(error).splitlines()
            assert all(line.startswith(f"{path}: ") for line in lines)
            return [line.removeprefix(f"{path}: ") for line in lines]
        return []

    return read


def test_a_good_task(faults):
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"about: \xff", "not YAML: 'utf-8' codec can't decode byte 0xff in position 7"),
        ("", "a task is a mapping of about, hub, file, mirror, "),
        ("7", "a task is a mapping of about, hub, file, mirror, "),
        ("about: [", "not YAML: while parsing a flow node"),
        ("about: 2024-13-01", "not YAML: month must be in 1..12"),
        ("about: &a {b: *a}", "not YAML: a mapping contains an alias of itself"),
        ("[" * 5000, "not YAML: nested more than 100 levels"),
        (GOOD + "about: again", "not YAML: line 4: about is given twice; keep one"),
        (GOOD.replace("{2: 5}", "{2: 5, 2: 6}"), "not YAML: line 2: 2 is given twice; keep one"),
        (GOOD + "sytem: boxed", "sytem: no such key; did you mean 'system'?"),
        (GOOD + "system: boxd", "system: no prompt 'boxd' in templates/prompts; did you mean 'boxed'?"),
        (GOOD.replace("math", "mth"), "reward: unknown reward 'mth', did you mean 'math'?"),
        (GOOD.replace("math", "math, params: {deadlin: 3}"), "reward: reward 'math': unknown parameter 'deadlin'"),
        (
            GOOD.replace("math", "math, params: {deadline: x}"),
            "reward: reward 'math': deadline: Input should be",
        ),
        (GOOD.replace("math", "math, params: {name: x}"), "reward: reward 'math': unknown parameter 'name'"),
        (GOOD.replace("math", "math, params: {deadline: .inf}"), "reward.params.deadline: Input should be a finite"),
        (GOOD + "filter: {url: {contain: x}}", "filter.url.contain: no such key; did you mean 'contains'?"),
        (GOOD + "filter: {url: {contains: x, is_not: y}}", "filter.url: give one of contains, is_not"),
        (GOOD + "filter: {url: {is_not: [1, null]}}", "filter.url.is_not.1: Input should be a valid string"),
        (GOOD + "choices: {question: q, options: o}", "choices: say either options and answer, or correct and wrong"),
        (GOOD + "choices: {question: q, options: o, anser: a}", "choices.anser: no such key; did you mean 'answer'?"),
        (GOOD + "choices: {question: q, correct: c, wrong: [w]}\ncolumns: {prompt: p}", "choices makes prompt and"),
        (GOOD + "filter: {level: .nan}", "filter.level: Input should be a finite number"),
        (GOOD.replace("{2: 5}", "{9: 5}"), "step.curriculum: no level 9; levels are 1 to 5"),
        (GOOD.replace("{2: 5}", "{2: 99999}"), "step.curriculum: level 2: 99999 distinct test questions"),
        (GOOD.replace("split: test, ", ""), "say the split of the step's rows"),
        (
            GOOD.replace("split: test", "split: test, subject: poetry"),
            "step.curriculum.subject: Input should be 'arith",
        ),
        ("about: x\nreward: {name: math}", "a task has one of hub, file, path, step"),
        (
            GOOD.replace("curriculum", "curiculum"),
            "step.curiculum: no step of that kind makes rows; did you mean 'curric",
        ),
        (GOOD.replace("curriculum", "dedup"), "step.dedup: no step of that kind makes rows"),
        (GOOD + "gated: true", "gated is of a hub's data set: leave it out"),
    ],
)
def test_a_fault_names_its_place(faults, content, message):
    (fault,) = faults(content)
    assert fault.startswith(message)


def test_all_faults_of_a_file_at_once(faults):
    content = """
        about: x
        step: {curriculum: {split: tset, levels: {2: 5}, sead: 1}}
        mirror: {url: "ftp://h/x", shaa256: 7}
        reward: {name: mth}
    """
    assert [fault.split(": ")[0] for fault in faults(content)] == [
        "mirror.url",
        "mirror.shaa256",
        "reward",
        "step.curriculum.split",
        "step.curriculum.sead",
    ]


def test_a_task_that_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", tmp_path)
    (tmp_path / "arithmetic.yaml").mkdir()
    with pytest.raises(DataError, match=r"arithmetic\.yaml: Is a directory"):
        tasks.read("arithmetic")
    with pytest.raises(DataError, match="no task 'aritmetic' in configs/tasks; did you mean 'arithmetic'"):
        tasks.read("aritmetic")
    with pytest.raises(DataError, match=r"no task '\.\./x'"):
        tasks.read("../x")
