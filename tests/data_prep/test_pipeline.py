"""Pipelines: all faults are reported at once with their places; the command line runs, resumes and reads."""

import json
import os
import subprocess
import sys

import making
import pytest
import yaml
from pydantic import ValidationError

from data_prep.core import fingerprint, pipeline
from data_prep.core.registry import step_class
from data_prep.errors import DataError
from data_prep.sources.tasks import ROOT


def faults(text: str) -> list[str]:
    return [str(fault) for fault in pipeline.parse("p", yaml.safe_load(text))[1]]


def test_a_chain_in_yaml():
    specs, found = pipeline.parse(
        "p",
        yaml.safe_load("""
        - load: {path: a.jsonl, name: first}
        - load: {path: b.jsonl, name: second}
        - dedup: {inputs: [first, second]}
        - select: {n: 5}
        - export:
        """),
    )
    assert found == []
    assert [(one.name, one.inputs) for one in specs] == [
        ("first", ()),
        ("second", ()),
        ("dedup", ("first", "second")),
        ("select", ("dedup",)),
        ("export", ("select",)),
    ]
    assert specs[0].params == {"path": "a.jsonl"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "pipeline: pipeline 'p' must be a list of steps"),
        ("{load: {}}", "pipeline: pipeline 'p' must be a list of steps"),
        ("[{load: {path: x}}, {pipeline: y}]", "1.pipeline: only the first item may be another pipeline"),
        ("[{laod: {path: x}}]", "0.laod: no such kind of step: 'laod'; did you mean 'load'?"),
        ("[{load: {path: x}, dedup: {}}]", "0: each step is one kind with its parameters"),
        ("[7]", "0: each step is one kind with its parameters"),
        ("[{load: x.jsonl}]", "0.load: parameters of load must be a mapping, not str"),
        ("[{load: {pth: x, path: y}}]", "0.load.pth: no such parameter; did you mean 'path'?"),
        ("[{load: {path: x, limit: many}}]", "0.load.limit: Input should be a valid integer"),
        ("[{load: {}}]", "0.load: give one of path, hub, url, task, tasks; found none"),
        (
            "[{load: {path: x, task: gsm8k}}]",
            "0.load: give one of path, hub, url, task, tasks; found path and task",
        ),
        ("[{load: {task: gsm8}}]", "0.load.task: no task 'gsm8' in configs/tasks; did you mean 'gsm8k'?"),
        ("[{load: {path: x, system: boxd}}]", "0.load.system: no prompt 'boxd' in templates/prompts"),
        ("[{load: {path: x, columns: {promt: q}}}]", "0.load.columns: rows have no field 'promt'"),
        ("[{load: {hub: a/b}}]", "0.load: pin the dataset: `revision: <40 hex digits>`"),
        (
            "[{load: {url: 'http://h/x.jsonl'}}]",
            "0.load: pin the file's content with one of sha256, git_blob",
        ),
        ("[{dedup: {}}]", "0.dedup: dedup needs input rows: put a source before it, such as `load`"),
        ("[{load: {path: x, inputs: [y]}}]", "0.load.inputs: load is a source and takes no inputs"),
        (
            "[{load: {path: x}}, {dedup: {inputs: [lod]}}]",
            "1.dedup.inputs: no step is named 'lod'; did you mean 'load'?",
        ),
        ("[{load: {path: x}}, {dedup: {inputs: 5}}]", "1.dedup.inputs: must be a list of names of steps"),
        (
            "[{load: {path: x}}, {load: {path: y}}]",
            "1.load.name: two steps are named 'load'; give one another `name`",
        ),
        ("[{load: {path: x}}, {score: {reward: mth}}]", "1.score: unknown reward 'mth'"),
        ("[{load: {path: x}}, {select: {}}]", "1.select: no condition given: set at least one of"),
        (
            "[{load: {path: x}}, {select: {level: [3, 1]}}]",
            "1.select.level: the lower bound must come first: [1, 3]",
        ),
        (
            "[{load: {path: x}}, {select: {outcome: good}}]",
            "1.select.outcome: no outcome 'good'; outcomes are scored",
        ),
        ("[{load: {path: x}}, {select: {min_score: .nan}}]", "1.select.min_score: Input should be a finite number"),
        ("[{load: {path: x}}, {select: {level: [1, .inf]}}]", "1.select.level.1: Input should be a finite number"),
        (
            "[{load: {path: x}}, {generate: {model: m, temperature: .inf}}]",
            "1.generate.temperature: Input should be a finite number",
        ),
        (
            "[{load: {path: x}}, {generate: {model: m, chat_template_kwargs: {a: [.nan]}}}]",
            "1.generate.chat_template_kwargs.a.0: Input should be a finite number",
        ),
        (
            "[{load: {path: x}}, {score: {reward: math, params: {a: .nan}}}]",
            "1.score.params.a: Input should be a finite number",
        ),
        (
            "[{load: {path: x}}, {score: {reward: math, params: {name: 1}}}]",
            "1.score: reward 'math': unknown parameter 'name'",
        ),
        ("[{load: {path: x, filter: {a: .nan}}}]", "0.load.filter.a: Input should be a finite number"),
        ("[{load: {path: x, filter: {a: [1, .nan]}}}]", "0.load.filter.a.1: Input should be a finite number"),
        (
            "[{load: {path: x, filter: {a: {b: 1}}}}]",
            "0.load.filter.a.b: no such parameter; known: contains, is_not",
        ),
    ],
)
def test_a_fault_names_its_place(text, message):
    (fault,) = faults(text)
    assert fault.startswith(message)


def test_steps_cannot_read_each_other_in_a_circle():
    found = faults("""
        - load: {path: x}
        - dedup: {inputs: [select]}
        - select: {n: 5, inputs: [dedup]}
    """)
    assert found == ["1.dedup.inputs: 'select' is not an earlier step; steps may only read earlier ones"]


def test_all_faults_at_once():
    found = faults("""
        - load: {path: x, limit: 0, colums: {}}
        - dedupe: {}
        - select: {min_score: high, n: -1}
    """)
    assert [one.split(":")[0] for one in found] == [
        "1.dedupe",
        "0.load.limit",
        "0.load.colums",
        "2.select.min_score",
        "2.select.n",
    ]


@pytest.mark.parametrize("key", ["sk-proj-abc123", "mine.txt", "Some_Key", "KEY;x", "KEY\n"])
def test_a_key_given_instead_of_its_variable_is_rejected_and_not_shown(tmp_path, key):
    params = {"model": "m", "base_url": "http://h/v1", "api_key_env": key}
    (fault,) = pipeline.parse("p", [{"load": {"path": "x"}}, {"generate": params}])[1]
    assert str(fault).startswith("1.generate.api_key_env: must be the name of an environment variable")
    assert key not in str(fault)
    making.write_jsonl(tmp_path / "x.jsonl", making.rows(1))
    with pytest.raises(DataError, match="api_key_env: must be the name") as caught:
        pipeline.plan(making.spec(tmp_path, ("load", {"path": "x.jsonl"}), ("generate", params)))
    assert key not in str(caught.value)
    with pytest.raises(ValidationError) as raw:
        step_class("generate").Params.model_validate(params)
    assert key not in str(raw.value)


@pytest.mark.parametrize("place", ["OPENAI_API_KEY", "_K2", "./keys.txt", "~/keys", "/run/secrets/key"])
def test_a_key_path_is_accepted(place):
    params = {"model": "m", "base_url": "http://h/v1", "api_key_env": place}
    assert pipeline.parse("p", [{"load": {"path": "x"}}, {"generate": params}])[1] == []


def test_a_faulty_chain_is_not_planned(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))
    twice = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("load", {"path": "in.jsonl", "pth": 1}))
    for ask in (pipeline.jobs, pipeline.plan, pipeline.run, pipeline.find):
        with pytest.raises(DataError) as caught:
            ask(twice)
        lines = str(caught.value).splitlines()
        assert lines[0] == "pipeline 'test': steps.load.name: two steps are named 'load'; give one another `name`"
        assert "pipeline 'test': steps.load.pth: no such parameter; did you mean 'path'?" in lines


def test_an_error_in_a_step_says_which(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))
    chain = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("generate", {"model": "./none"}))
    with pytest.raises(DataError, match=r"step 'generate': model '\./none'") as caught:
        pipeline.plan(chain)
    assert caught.value.step == "generate"
    long = making.spec(tmp_path, ("load", {"path": "x" * 300 + ".jsonl"}))
    with pytest.raises(DataError, match=r"step 'load': .*File name too long") as caught:
        pipeline.jobs(long)
    assert caught.value.step == "load"
    assert DataError("elsewhere").step is None


def test_replanning_reads_an_unchanged_file_once(tmp_path, monkeypatch):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))
    chain = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("score", {"reward": "math"}))
    keys = [job.key for job in pipeline.jobs(chain)]
    monkeypatch.setattr(fingerprint, "SETTLED_NS", 0)
    monkeypatch.setattr(fingerprint, "SMALL", 0)
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "hashes of files"))
    reads = []
    monkeypatch.setattr(fingerprint, "_read_hash", lambda path: reads.append(path) or "0" * 64)
    assert pipeline.jobs(chain)[0].key == pipeline.jobs(chain)[0].key != keys[0]
    assert reads == [tmp_path / "in.jsonl"]
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(2))
    pipeline.jobs(chain)
    assert len(reads) == 2
    monkeypatch.undo()
    assert [job.key for job in pipeline.jobs(chain)] != keys


def test_a_file_that_has_just_changed_is_read_again(tmp_path):
    found = set()
    for text in "abcdefgh":  # quicker than time stamps, and all of one size
        (tmp_path / "x").write_text(text)
        found.add(fingerprint.file_hash(tmp_path / "x"))
    assert len(found) == 8


def test_params_that_cannot_change_rows_do_not_change_the_key(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))

    def key(**params):
        chain = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("score", {"reward": "math", **params}))
        return pipeline.jobs(chain)[1].key

    assert key() == key(workers=7) == key(max_error_share=0.5)


def test_a_change_upstream_changes_every_key_below(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))

    def keys(limit):
        chain = making.spec(tmp_path, ("load", {"path": "in.jsonl", "limit": limit}), ("dedup", {}), ("export", {}))
        return [job.key for job in pipeline.jobs(chain)]

    assert all(one != other for one, other in zip(keys(2), keys(3), strict=True))


def test_plan_reports_finished_work(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))
    chain = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("dedup", {}))
    assert [(one.state, one.rows_in, one.rows_out) for one in pipeline.plan(chain)] == [("todo", None, None)] * 2
    assert not (tmp_path / "cache").exists()
    pipeline.run(chain, ["load"])
    assert [(one.state, one.rows_in, one.rows_out) for one in pipeline.plan(chain)] == [
        ("done", None, 3),
        ("todo", 3, None),
    ]


def test_steps_run_one_by_one(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))
    chain = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("dedup", {}))
    with pytest.raises(DataError, match="step 'dedup' needs step 'load', which has not been run"):
        pipeline.run(chain, ["dedup"])
    with pytest.raises(DataError, match="has no step 'dedub'; did you mean 'dedup'"):
        pipeline.run(chain, ["dedub"])
    with pytest.raises(DataError, match="is not finished"):
        list(pipeline.read_rows(pipeline.find(chain)))
    pipeline.run(chain, ["load"])
    pipeline.run(chain, ["dedup"])
    assert len(list(pipeline.read_rows(pipeline.find(chain, "dedup")))) == 3


def command(*args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data_prep", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **kwargs,
    )


def test_the_command_line(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(5))
    path = tmp_path / "with space;$(x).json"
    path.write_text(making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("dedup", {})).model_dump_json())
    early = command("rows", path)
    assert (early.returncode, early.stdout) == (2, "")
    assert command("rows", "--help").stdout.startswith("usage: python -m data_prep rows ")
    done = command("run", path, "--steps", "load,dedup")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("load: 5 in · 5 out")
    assert command("run", path).stderr.splitlines() == [
        "load: 5 in · 5 out · cached",
        "dedup: 5 in · 5 out · cached",
    ]
    lines = command("rows", path).stdout.split("\n")
    assert [json.loads(line)["meta"]["index"] for line in lines if line] == list(range(5))
    assert [one["state"] for one in json.loads(command("plan", path).stdout)] == ["done", "done"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("{}", "name: Field required"),
        ('{"name": "a", "base": "rel", "cache": "/c", "steps": []}', "base: must be an absolute path"),
        ('{"name": "a", "base": "/b", "cache": "/c", "steps": []}', "a pipeline needs at least one step"),
        (
            '{"name": "a", "base": "/b", "cache": "/c", "steps": [{"name": "x", "kind": "loda"}]}',
            "steps.x: no such kind of step: 'loda'; did you mean 'load'?",
        ),
        (
            '{"name": "a", "base": "/b", "cache": "/c", "steps": [{"name": "x", "kind": "pathlib:Path"}]}',
            "no such kind of step: 'pathlib:Path': not a subclass of data_prep.core.step.Step",
        ),
        (
            '{"name": "a", "base": "/b", "cache": "/c", "steps": [{"name": "x", "kind": "nowhere:Shout"}]}',
            "no such kind of step: 'nowhere:Shout': No module named 'nowhere'",
        ),
    ],
)
def test_a_bad_spec_is_reported_without_a_traceback(tmp_path, text, message):
    path = tmp_path / "spec.json"
    path.write_text(text)
    done = command("run", path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith(str(path)) for line in done.stderr.splitlines())


def test_limits_exit_with_3_and_missing_specs_with_2(tmp_path):
    (tmp_path / "in.jsonl").write_text("no\n" * 9 + '{"prompt": "p"}\n')
    path = tmp_path / "spec.json"
    path.write_text(making.spec(tmp_path, ("load", {"path": "in.jsonl"})).model_dump_json())
    done = command("run", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    absent = command("run", tmp_path / "absent.json")
    assert (absent.returncode, absent.stderr) == (
        2,
        f"{tmp_path / 'absent.json'}: No such file or directory\n",
    )


def test_a_reader_may_stop_early(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", [{**row, "completion": "x" * 10_000} for row in making.rows(200)])
    path = tmp_path / "spec.json"
    path.write_text(making.spec(tmp_path, ("load", {"path": "in.jsonl"})).model_dump_json())
    assert command("run", path).returncode == 0
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep", "rows", str(path)], cwd=ROOT, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 0


HEAVY = ["torch", "vllm", "datasets", "pandas", "pyarrow", "numpy", "matplotlib"]
HEAVY += ["math_verify", "sympy", "openai", "multiprocessing"]


def test_planning_imports_nothing_heavy():
    code = (
        "import sys, data_prep.core.pipeline\nfrom data_prep.core.registry import STEPS, step_class\n"
        "for kind in STEPS: step_class(kind)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
