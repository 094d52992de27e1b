"""The engine: atomic files, the same bytes on every executor, nothing lost or duplicated by kill -9."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import making
import pytest
import steps_for_tests  # noqa: F401 - registers its steps

from data_prep.core import engine, executors, pipeline
from data_prep.core.executors import processes
from data_prep.core.files import require_space, temporary_path, whole_file, write_atomic, write_files
from data_prep.core.manifest import read_manifest
from data_prep.core.progress import Progress
from data_prep.core.shards import Call, Execution, Inputs
from data_prep.core.stored import stored
from data_prep.errors import DataError, LimitExceeded

COMMAND = [sys.executable, str(Path(__file__).with_name("steps_for_tests.py"))]
REPOSITORY = Path(__file__).parents[2]


def slow_spec(folder: Path, count: int = 95, cache: str = "cache", **params) -> pipeline.Spec:
    making.write_jsonl(folder / "in.jsonl", making.rows(count))
    return making.spec(folder, ("load", {"path": "in.jsonl"}), ("slow", params), cache=cache)


def test_every_row_is_accounted_for(tmp_path):
    spec = slow_spec(tmp_path)
    loaded, slow = pipeline.run(spec)
    assert (loaded.rows_in, loaded.rows_out, loaded.shards) == (95, 95, 1)
    assert (slow.rows_in, slow.rows_out, slow.drops, slow.shards) == (95, 81, {"every seventh": 14}, 10)
    assert slow.counts == {"even": 41, "odd": 40}
    assert len(slow.examples["every seventh"]) == 3
    rows = list(pipeline.read_rows(pipeline.find(spec)))
    assert [row["meta"]["index"] for row in rows] == [n for n in range(95) if n % 7 != 3]
    assert rows[0]["completion"] == "ANSWER É 0"


def test_a_pool_writes_the_same_bytes(tmp_path):
    alone, pooled = slow_spec(tmp_path, cache="a"), slow_spec(tmp_path, cache="b", workers=3)
    one, many = pipeline.run(alone)[-1], pipeline.run(pooled)[-1]
    assert making.shards(pipeline.find(alone)) == making.shards(pipeline.find(pooled))
    assert (one.key, one.sha256, one.drops, one.examples) == (
        many.key,
        many.sha256,
        many.drops,
        many.examples,
    )


def test_a_second_run_does_nothing_and_a_failed_run_resumes(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DataError, match="shard 6 cannot be done"):
        pipeline.run(slow_spec(tmp_path, log=str(log), die_at=6))
    assert pipeline.plan(slow_spec(tmp_path))[-1].state == "partial"
    assert pipeline.plan(slow_spec(tmp_path))[-1].shards_done == 6
    spec = slow_spec(tmp_path, log=str(log))
    pipeline.run(spec)
    pipeline.run(spec)
    assert log.read_text().split() == [str(n) for n in range(10)]
    assert pipeline.plan(spec)[-1].state == "done"


def test_a_pool_reports_worker_errors(tmp_path):
    with pytest.raises(DataError, match="shard 6 cannot be done"):
        pipeline.run(slow_spec(tmp_path, die_at=6, workers=2))


def processes_marked(mark: str) -> list[int]:
    """Live processes with the marker in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            marked = f"STORM={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:  # it ended while we looked
            continue
        if marked and not zombie:
            found.append(int(entry.name))
    return found


def wait_until_gone(mark: str) -> list[int]:
    deadline = time.monotonic() + 5
    while (left := processes_marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def storm(folder: Path, kills: int, workers: int) -> None:
    """Kill a run repeatedly at random moments, then let it finish, and compare with an undisturbed run."""
    rng = random.Random(7)
    log, mark = folder / "log", folder.name
    peaceful = slow_spec(folder, 300, cache="peace")
    pipeline.run(peaceful)
    spec = slow_spec(folder, 300, seconds=0.05, log=str(log), workers=workers)
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "STORM": mark}
    for _ in range(kills):
        process = subprocess.Popen([*COMMAND, "run", str(path)], env=env, stderr=subprocess.PIPE)
        time.sleep(rng.uniform(0.3, 1.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert wait_until_gone(mark) == [], "a worker outlived its parent"
    done = subprocess.run([*COMMAND, "run", str(path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert making.shards(pipeline.find(spec)) == making.shards(pipeline.find(peaceful))
    calls = log.read_text().split()
    assert set(calls) == {str(n) for n in range(30)}
    assert len(calls) <= 30 + kills * workers, "more was done again than was in flight"
    assert not list(pipeline.find(spec).rglob("*.tmp"))
    shutdown = read_manifest(pipeline.find(spec))
    assert shutdown is not None
    assert shutdown.rows_out + sum(shutdown.drops.values()) == shutdown.rows_in == 300


@pytest.mark.parametrize("workers", [1, 2])
def test_repeated_kills(tmp_path, workers):
    storm(tmp_path, kills=4, workers=workers)


@pytest.mark.full
def test_repeated_kills_long(tmp_path):
    storm(tmp_path, kills=40, workers=2)


def test_two_processes_share_one_step(tmp_path):
    log = tmp_path / "log"
    path = tmp_path / "spec.json"
    path.write_text(slow_spec(tmp_path, seconds=0.05, log=str(log)).model_dump_json())
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    both = [
        subprocess.Popen([*COMMAND, "run", str(path)], env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ends = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sorted(map(int, log.read_text().split())) == list(range(10)), "a shard was done twice"


def test_concurrent_starts_of_one_step(tmp_path):
    """The process that holds the lock empties the step's folder while others access it."""
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(3))
    with ThreadPoolExecutor(8) as threads:
        for attempt in range(20):
            spec = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), cache=f"cache{attempt}")
            done = list(threads.map(lambda _, spec=spec: pipeline.run(spec)[-1].rows_out, range(8)))
            assert done == [3] * 8


def test_waiting_for_a_lock_is_reported(tmp_path):
    spec = slow_spec(tmp_path)
    pipeline.run(spec, ["load"])
    job = pipeline.jobs(spec)[1]
    job.dir.mkdir()
    said = []

    class Listener(Progress):
        def waiting(self, job):
            said.append(job.name)
            fcntl.flock(holder, fcntl.LOCK_UN)

    with (job.dir / "lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        pipeline.run(spec, progress=Listener())
    assert said == ["slow"]


COLUMNS = {"prompt": "prompt", "completion": "completion", "meta.index": "meta.index"}  # a map keeps an empty text


def test_a_row_without_a_required_field_is_dropped_before_the_step(tmp_path):
    rows = making.rows(100)
    rows[18]["completion"] = ""
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    manifest, _ = making.run(tmp_path, ("load", {"path": "in.jsonl", "columns": COLUMNS}), ("slow", {}))
    assert manifest.drops["empty completion"] == manifest.bad == 1
    only_prompts = {"path": "in.jsonl", "columns": {"prompt": "prompt", "meta.index": "meta.index"}}
    with pytest.raises(LimitExceeded, match=r"10 of 100 rows are unusable \(10 missing completion\)"):
        making.run(tmp_path, ("load", only_prompts), ("slow", {}))


def test_too_many_bad_rows_abort_early_with_status_3(tmp_path):
    rows = making.rows(100)
    for row in rows[:30]:
        row["completion"] = ""
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    items = ("load", {"path": "in.jsonl", "columns": COLUMNS}), ("slow", {})
    with pytest.raises(LimitExceeded, match=r"10 of 100 rows are unusable \(10 empty completion\)") as caught:
        making.run(tmp_path, *items)
    assert caught.value.status == 3
    assert "more than the limit of 0.05 (limits.bad_rows of a recipe" in str(caught.value)
    manifest, _ = making.run(tmp_path, *items, max_drop_share=0.3)
    assert manifest.drops["empty completion"] == 30


def test_a_verdict_aborts_and_its_shards_are_retried(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(50))
    items = ("load", {"path": "in.jsonl"}), ("suspicious", {"log": str(tmp_path / "log")})
    with pytest.raises(LimitExceeded, match="odd"):
        making.run(tmp_path, *items)
    assert pipeline.plan(making.spec(tmp_path, *items))[-1].shards_done == 0


def test_an_empty_output_is_explained(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", [{**row, "meta": {"index": 3}} for row in making.rows(4)])
    with pytest.raises(DataError, match="'slow' keeps none of 4 rows: 4 every seventh"):
        making.run(tmp_path, ("load", {"path": "in.jsonl"}), ("slow", {}))


def test_a_full_disk_is_a_one_line_error(tmp_path):
    # The name under which the writer starts leads to a device that is always full.
    temporary_path(tmp_path / "rows.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"rows\.jsonl.*the disk is full; free some space"):
        write_atomic(tmp_path / "rows.jsonl", [b"x" * 100_000])
    assert list(tmp_path.iterdir()) == []


def test_files_written_together_appear_with_the_last_one(tmp_path):
    """If the last one cannot be written, none appears."""
    temporary_path(tmp_path / "b").symlink_to("/dev/full")
    with pytest.raises(DataError, match="the disk is full"):
        write_files([(tmp_path / "a", [b"x"]), (tmp_path / "b", [b"x" * 100_000])])
    assert list(tmp_path.iterdir()) == []
    write_files([(tmp_path / "a", [b"x"]), (tmp_path / "b", [b"y", b"z"])])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"x", "b": b"yz"}


@pytest.mark.parametrize("error", [KeyError("stop"), OSError(28, "full")])
def test_a_failed_writer_leaves_no_file(tmp_path, error):
    def half() -> None:
        with whole_file(tmp_path / "rows") as file:
            file.write(b"half")
            raise error

    (tmp_path / "rows").write_text("older")
    with pytest.raises(DataError if isinstance(error, OSError) else KeyError):
        half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]
    with whole_file(tmp_path / "rows") as file:
        file.write(b"whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize("kept", [("select", {"n": 10}), ("dedup", {}), ("export", {})])
def test_an_unchanged_row_is_written_verbatim(tmp_path, kept):
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(10))
    items = ("load", {"path": "in.jsonl"}), kept
    loaded = pipeline.find(making.spec(tmp_path, *items[:1]))
    pipeline.run(making.spec(tmp_path, *items[:1]))
    (shard,) = (loaded / "shards").glob("00000.jsonl")
    lines = [json.dumps(json.loads(line), indent=None).encode() for line in shard.read_bytes().splitlines()]
    shard.write_bytes(b"\n".join(lines) + b"\n")  # the same rows with other spaces and escapes
    manifest, _ = making.run(tmp_path, *items)
    assert manifest.rows_out == 10
    written = (pipeline.find(making.spec(tmp_path, *items)) / "shards" / "00000.jsonl").read_bytes()
    assert written == shard.read_bytes()


def test_a_copy_of_a_stored_row_can_be_changed():
    row = stored(b'{"id": "1", "meta": {}}\n')
    assert row.line == b'{"id": "1", "meta": {}}\n'
    assert [type(one) for one in ({**row}, row | {"id": "2"}, row.copy())] == [dict, dict, dict]
    with pytest.raises(ValueError, match="Extra data"):
        stored(b'{"id": "1"} {"id"\n')


def test_space_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match=r"step 'x' may write 1\.0 EB and the disk has .* free"):
        require_space(tmp_path, 10**18, "step 'x'")
    huge = tmp_path / "huge.jsonl"
    with huge.open("wb") as file:
        file.truncate(os.statvfs(tmp_path).f_frsize * os.statvfs(tmp_path).f_blocks)  # sparse: takes no space
    job = pipeline.jobs(slow_spec(tmp_path))[0]
    job = replace(job, params={**job.params, "path": "huge.jsonl"})
    with pytest.raises(DataError, match="step 'load' may write"):
        engine.run_step(job)
    assert list(job.shards.iterdir()) == []


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    spec = slow_spec(tmp_path)
    job = pipeline.jobs(spec)[1]
    job.shards.mkdir(parents=True)
    (job.shards / ".00001.jsonl.123.tmp").write_text('{"half')
    pipeline.run(spec)
    assert not list(job.dir.rglob("*.tmp"))


def test_a_new_version_of_the_code_is_a_new_step(tmp_path):
    job = pipeline.jobs(slow_spec(tmp_path))[1]
    manifest = pipeline.run(slow_spec(tmp_path))[1]
    assert manifest.code == job.code == json.loads((job.dir / "manifest.json").read_text())["code"]
    assert job.dir.name == f"slow-{job.key[:12]}"


def test_passed_rows_are_read_only():
    """The original line would be written."""
    row = stored(b'{"id": "1", "score": 0}\n')
    for change in (lambda: row.__setitem__("score", 1), lambda: row.update(score=1), lambda: row.pop("score")):
        with pytest.raises(TypeError, match="yield a copy"):
            change()
    with pytest.raises(TypeError, match="yield a copy"):
        row |= {"score": 1}
    assert row == {"id": "1", "score": 0}


def split_spec(folder: Path, engine: str) -> pipeline.Spec:
    """Rows that repeat each other across shards."""
    texts = [f"What is {n % 700} + {n % 700}, and why?" for n in range(2500)]
    making.write_jsonl(folder / "in.jsonl", [{"id": f"r{n}", "prompt": text} for n, text in enumerate(texts)])
    steps = ("load", {"path": "in.jsonl"}), ("dedup", {"near": 0.8, "ngram": 2})
    return making.spec(folder, *steps, cache=engine, execution={"engine": engine, "workers": 2})


def test_a_split_step_decides_on_all_rows_and_writes_the_same_bytes_on_many_processes(tmp_path):
    alone, pooled = split_spec(tmp_path, "serial"), split_spec(tmp_path, "processes")
    one, many = pipeline.run(alone)[-1], pipeline.run(pooled)[-1]
    assert (one.shards, one.rows_in, one.rows_out) == (3, 2500, 700)
    assert one.drops == many.drops == {"duplicate": 1800}
    assert making.shards(pipeline.find(alone)) == making.shards(pipeline.find(pooled))
    first = json.loads((pipeline.find(alone) / "shards/00002.drops.jsonl").read_text().splitlines()[-1])
    assert (first["row_id"], first["detail"][:12]) == ("r2499", "repeats r399")


def test_lines_are_found_across_files_without_reading_all_of_them(tmp_path):
    spec = slow_spec(tmp_path, 95)
    pipeline.run(spec)
    inputs = Inputs.of(replace(pipeline.jobs(spec)[1], input_dirs=(pipeline.find(spec, "slow"),)))
    every = [line for path in inputs.files for line in path.read_bytes().splitlines(keepends=True)]
    assert inputs.rows == len(every) == 81
    for start, stop in ((0, 81), (7, 9), (8, 30), (80, 200), (81, 90), (0, 0)):
        assert inputs.lines(start, stop) == every[start:stop]


def test_the_number_of_processes_follows_the_setting(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(executors, "cpus", lambda: 2)
    monkeypatch.setattr(processes, "work", lambda job, calls, workers: made.append(workers) or iter(()))
    spec = slow_spec(tmp_path, workers=None)
    pipeline.run(spec, ["load"])
    job = pipeline.jobs(spec)[1]
    calls = [Call(index) for index in range(3)]
    for settings, asked in (({}, None), ({"workers": 2}, None), ({"workers": 9}, None), ({}, 2), ({"workers": 2}, 9)):
        own = replace(job, params={**job.params, "workers": asked}, execution=Execution(**settings))
        executors.execute(own, own.step(), calls)
    assert made == [2, 2, 3, 2, 2]
