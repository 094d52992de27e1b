"""Known faults of launching on clusters, each in the smallest situation that shows it, with stand-ins for Slurm."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launchers.errors import RunError, UserError
from launchers.run import attempts, events, failures, stage, submit
from launchers.run import directory as rundir
from launchers.run import status as states
from launchers.study import jobs, sweep
from launchers.targets import slurm
from tests.conftest import Repo
from tests.launchers.conftest import Tool
from tests.launchers.test_jobs import made


def test_machines_of_another_world_size_are_another_run() -> None:
    """ZeRO's and verl's shards are written by rank, and cannot be read by another number of ranks."""
    hashes = {rundir.run_hash(made("bleuberi/grpo", f"hardware={name}")) for name in ("h100x8", "h100x8x2")}
    assert len(hashes) == 2


def test_rows_are_tokenised_well_within_the_limit_that_other_ranks_wait() -> None:
    config = yaml.safe_load(rundir.files(made("sky_t1/sft_2x8"))["train/llamafactory.yaml"])
    assert (config["ddp_timeout"], config["preprocessing_num_workers"]) == (18_000, 8)
    assert Path(config["dataset_dir"]).name == "export"  # made by the job before


def test_verl_on_several_nodes_writes_to_absolute_paths_and_joins_the_jobs_cluster_only() -> None:
    files = rundir.files(made("bleuberi/grpo_2x8"))
    config = yaml.safe_load(files["train/verl.yaml"])
    assert (config["trainer"]["nnodes"], config["trainer"]["n_gpus_per_node"]) == (2, 8)
    assert config["trainer"]["default_local_dir"].startswith("/run/")
    assert config["ray_kwargs"]["ray_init"] == {"address": "auto"}
    assert "RAY_ADDRESS" in files["local.sh"].split("for name in ")[1].split(";")[0]


def test_too_few_cpus_for_verls_workers_are_an_error_before_submission(repo: Repo) -> None:
    profile = (repo.path / "configs/hardware/h100x8x2.yaml").read_text().replace("cpus: 96", "cpus: 16")
    repo.write("configs/hardware/small.yaml", profile)
    done = repo.launch("check", "bleuberi/grpo", "--set", "hardware=small")
    assert "a node has 16 CPUs, but verl's workers on its 8 GPUs need 25" in done.stderr


def _status(run: Path) -> states.Status:
    (status,) = states.of_runs([run])
    return status


def test_a_slurm_that_does_not_answer_is_not_taken_for_one_without_jobs(run: Path, tool: Tool, repo: Repo) -> None:
    rundir.add_job(run, "5", "train")
    tool("sacct", "exit 1")
    tool("sbatch", "echo 6")
    tool("squeue", 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1')
    assert (_status(run).state, _status(run).scheduler) == ("unknown", [])
    for words in (("cancel", str(run)), ("submit", "min_o1/sft_long", "--scale", "mini")):
        done = repo.launch(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "squeue failed: slurm_load_jobs error: Unable to contact slurm controller" in done.stderr
    tool("squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert _status(run).state == "new"
    assert repo.launch("cancel", str(run)).stdout.strip() == "Slurm has no jobs of this run"


def test_how_forgotten_jobs_ended_is_in_slurms_accounts(run: Path, tool: Tool) -> None:
    tool("squeue", "exit 0")
    tool("sacct", "echo '5|TIMEOUT'; echo '6|CANCELLED by 1000'")
    for job, name in (("5", "train"), ("6", "report")):
        rundir.add_job(run, job, name)
    assert (_status(run).state, _status(run).scheduler[0][2]) == ("failed", "TIMEOUT")
    assert [failure.name for failure in failures.of_run(run)] == ["time limit"]
    rundir.add_job(run, "8", "train")  # a later submission, whose end is not known
    assert (_status(run).state, failures.of_run(run)) == ("new", [])


def test_a_run_that_cannot_be_read_hides_no_other_and_slurm_is_asked_once(
    run: Path, tool: Tool, tmp_path: Path
) -> None:
    tool("squeue", f"echo asked >> {tmp_path}/asked; echo '5|RUNNING|None'; echo '6|PENDING|None'")
    out = run.parent.parent.parent
    for job, name in (("5", "one"), ("6", "two")):
        shutil.copytree(run, run.with_name(name))
        rundir.add_job(run.with_name(name), job, "train")
    for name, text in (("torn", '{"recipe": "min_o'), ("list", "[]"), ("empty", "{}")):
        (run.with_name(name)).mkdir()
        (run.with_name(name) / "run.json").write_text(text)
    states_by_name = {Path(one.run).name: one.state for one in states.of_all(out)}
    assert states_by_name == {
        "one": "running", "two": "queued", "torn": "unreadable", "list": "unreadable", "empty": "unreadable",
        run.name: "new",
    }  # fmt: skip
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_the_states_of_one_job(run: Path, tool: Tool) -> None:
    rundir.add_job(run, "5", "train")
    tool("squeue", "echo '5|OUT_OF_MEMORY|None'")
    assert _status(run).state == "failed"
    tool("squeue", "echo '5|PENDING|DependencyNeverSatisfied'")
    assert _status(run).state == "failed"
    tool("squeue", "echo '5|REQUEUED|None'")
    assert _status(run).state == "queued"


def test_a_job_that_was_accepted_without_an_answer_is_known_by_its_comment(run: Path, tool: Tool) -> None:
    tool("squeue", f"[[ $* = *--me* ]] && echo '9|None|{run.name}'; exit 0")
    assert submit.alive(run) == ["9"]
    tool("squeue", "[[ $* = *--me* ]] && echo '9|None|another run'; exit 0")
    assert submit.alive(run) == []


@pytest.mark.parametrize(("said", "hint"), [
    ("Batch job submission failed: Invalid account or account/partition combination specified",
     "correct account in configs"),
    ("Batch job submission failed: Invalid qos specification", "correct qos in configs/sites"),
    ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
     "lower time_limit: "),
    ("QOSMaxSubmitJobPerUserLimit\\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
     "(job submit limit, user's size and/or time limits)", "a limit of the account or the QOS"),
    ("AssocGrpGRES\\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy", "a limit of the"),
    ("Batch job submission failed: Invalid generic resource (gres) specification", "correct gpu_type in configs/sites"),
    ("Batch job submission failed: Invalid feature specification", "correct constraint in configs/sites"),
    ("Memory specification can not be satisfied\\nsbatch: error: Batch job submission failed: Requested node "
     "configuration is not available", "lower memory in configs/sites"),
    ("You have to specify an account with -A\\nsbatch: error: Batch job submission failed: Unspecified error",
     "correct account in configs/sites"),
    ("Batch job submission failed: Unable to contact slurm controller (connect failure)", "the controller does not"),
    ("Batch job submission failed: Socket timed out on send/recv operation", "the controller does not answer"),
    ("unrecognized option '--foo'\\nTry \\\"sbatch --help\\\" for more information", "correct extra in configs/sites"),
])  # fmt: skip
def test_what_slurm_says_comes_with_what_to_change(tool: Tool, said: str, hint: str) -> None:
    tool("sbatch", f'printf "sbatch: error: {said}\\n" >&2; exit 1')
    words = said.replace("\\n", "; ").replace('\\"', '"')
    with pytest.raises(RunError, match=re.escape(f"sbatch rejected the job: sbatch: error: {words}: {hint}")):
        slurm.submit(["sbatch", "--parsable", "job.sbatch"])


def test_the_first_job_is_held_until_all_that_wait_for_it_are_submitted(tool: Tool, repo: Repo, tmp_path: Path) -> None:
    """A dependency on a job that has ended by then is refused, or never satisfied."""
    asked = tmp_path / "asked"
    tool("sbatch", f'[[ $* = *--test-only* ]] && exit; echo "sbatch $*" >> {asked}; grep -c ^sbatch {asked}')
    tool("scontrol", f'[[ $1 = show ]] || echo "scontrol $*" >> {asked}')
    tool("squeue", "exit 0")
    assert repo.launch("submit", "min_o1/sft_long", "--scale", "mini").returncode == 0
    *jobs, released = asked.read_text().splitlines()
    waits = [re.findall(r"--hold|(?<=--dependency=)\S+", line) for line in jobs]
    assert waits == [["--hold"], ["afterok:1"], ["afterok:2"], ["afterok:3"]]
    assert released == "scontrol release 1"
    asked.unlink()
    sweep = repo.launch("sweep", "min_o1/sft_long", "train.steps=1,2", "--scale", "mini", "--slurm")
    assert sweep.returncode == 0, sweep.stderr
    *arrays, released = asked.read_text().splitlines()
    waits = [re.findall(r"--hold|--array=\S+|(?<=--dependency=)\S+", line) for line in arrays]
    assert waits[:2] == [["--hold", "--array=0-1"], ["--array=0-1", "aftercorr:1"]]
    assert (waits[-1], released) == (["afterany:4"], "scontrol release 1")
    assert "--gpus-per-task" not in str(arrays)  # which would hide peers: a task of a node sees all its GPUs


def test_two_submissions_of_a_run_at_the_same_time_are_one(run: Path, repo: Repo) -> None:
    (run / ".submit").mkdir()
    with (run / ".submit/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = repo.launch("submit", "min_o1/sft_long", "--scale", "mini")
    assert (refused.returncode, "another process is working on this submission" in refused.stderr) == (2, True)


def test_gpus_of_another_kind_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(repo.launch("render", "min_o1/sft_short").stdout.strip())
    for kind, warned in (("NVIDIA H800", False), ("NVIDIA A100-SXM4-40GB", True)):
        driver = tmp_path / kind / "0000:00:00.0"
        driver.mkdir(parents=True)
        (driver / "information").write_text(f"Model: \t\t {kind}\nIRQ: 1\n")
        monkeypatch.setattr(attempts, "DRIVER", tmp_path / kind)
        assert attempts.main([str(run), "20", "train"]) == 0
        assert ("A100-SXM4-40GB, but h800x4 expects H800" in capsys.readouterr().out) == warned


def test_a_read_only_shared_disk_is_one_line_of_the_jobs_log(run: Path, repo: Repo) -> None:
    mounts = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec bash "$1/job.sbatch" data'
    environ = {**repo.environ(), "SLURM_JOB_ID": "1"}
    words = ["unshare", "--mount", "bash", "-c", mounts, "job", str(run)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == f"error: [Errno 30] Read-only file system: '{run}/events.jsonl'"
    assert [one.name for one in failures.recognise(line, "log")] == ["file system"]


@pytest.mark.parametrize("array", [False, True])
def test_with_chain_a_job_requeues_itself_by_the_number_of_its_own_task(
    repo: Repo, tool: Tool, tmp_path: Path, array: bool
) -> None:
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "chain=true")
    run = Path(repo.launch("render", *words).stdout.strip())
    (run / "local.sh").write_text('touch "$(dirname "$0")/started"\nsleep 60 & wait\n')
    tool("squeue", "echo 2:30")
    tool("scontrol", f'echo "$*" > {tmp_path}/asked; kill -KILL $PPID')
    environ = {**repo.environ(), "SLURM_JOB_ID": "8"}
    environ |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"} if array else {}
    text = (run / "job.sbatch").read_text().replace("{1..90}", "{1..1}")
    job = subprocess.Popen(["bash", "-c", text, "job", "data"], env=environ, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (run / "started").exists() and time.monotonic() < end:
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    assert (tmp_path / "asked").read_text().split() == ["requeue", "7_3" if array else "8"]


def test_a_grid_larger_than_the_clusters_arrays_is_refused(tool: Tool, tmp_path: Path) -> None:
    tool("scontrol", "echo 'MaxArraySize            = 2'")
    with pytest.raises(UserError, match="3 runs exceed the cluster's MaxArraySize 2"):
        jobs.submit(jobs.Jobs(tmp_path, [], [], [None] * 3))  # type: ignore[list-item]


@pytest.mark.parametrize(("grid", "said"), [
    ("seed=1,2", "no key to vary"),
    ("train.steps=1,1", "must be unique"),
    ("train.learning_rate=1e-5,0.00001", "must be unique"),
    ("train.steps=1 train.steps=2", "must be unique"),
])  # fmt: skip
def test_a_grid_that_says_nothing_or_too_much_is_refused(grid: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sweep.study_of("min_o1/sft_short", grid.split())


def test_compute_nodes_without_a_network_need_a_staged_run(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write("configs/sites/dark.yaml", "offline: true\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=dark")
    for verb in ("check", "submit"):
        refused = repo.launch(verb, *words)
        assert refused.returncode == 2
        assert "compute nodes have no network: run make stage/min_o1/sft_long on a login node first" in refused.stderr
    staged = repo.launch("stage", *words, "--json")
    assert staged.returncode == 0, staged.stderr
    told = json.loads(staged.stdout)
    assert any(line.startswith("environment llamafactory: ") for line in told["staged"])
    assert "rows of eval/after.spec.json: load" in told["staged"]
    assert repo.launch("check", *words).returncode == 0
    again = repo.launch("submit", *words, PATH="/nowhere")
    assert "sbatch is not on PATH" in again.stderr


@pytest.mark.parametrize(("name", "settings", "said"), [
    ("min_o1/sft_short", ("eval.tasks=[gsm8k, alpaca_eval/chat]", "eval.judge.model=gpt-4o"), "sends requests to https://api.openai.com"),
    ("long_cot/grpo_2x8", ("reward_model.placement=endpoint", "reward_model.url=http://rm.example.org:8000"),
     "reward_model.url: compute nodes have no network, but http://rm.example.org:8000 is remote"),
])  # fmt: skip
def test_what_a_run_would_ask_beyond_its_nodes_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, settings: tuple[str, ...], said: str
) -> None:
    online = made(name, *settings, run=tmp_path)
    (tmp_path / stage.STAGED).touch()
    stage.check(online)
    monkeypatch.setattr(slurm, "site_of", lambda _: slurm.Site(offline=True))
    with pytest.raises(UserError, match=re.escape(said)):
        stage.check(online)


def test_a_running_command_counts_its_heartbeat(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [sys.executable, "-m", "launchers.run.supervise", str(run), "data", "", "--", "sleep", "1"]
    assert subprocess.run(words).returncode == 0
    assert (run / events.HEARTBEAT).read_text().split()[0] == "1"
    old = time.time() + 3600  # a file server whose clock is ahead
    os.utime(run / events.HEARTBEAT, (old, old))
    assert _status(run).heartbeat > str(next(events.read(run))["time"])


def test_models_to_fetch_are_those_of_training_and_rewards() -> None:
    found = dict(stage.models(made("long_cot/grpo_2x8")))
    assert found["Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"] == "d4117fbfd81b72f41b96341238baa1e3e90a4ce1"
    assert found["Skywork/Skywork-Reward-V2-Llama-3.1-8B"] == "cba2f842f3f1af2f1b2f0d35e794d789976390c5"
    assert "meta-llama/Llama-3.1-8B-Instruct" in found
    assert "Skywork/Skywork-Reward-V2-Llama-3.1-8B" in found  # its second_judge
    assert "minishlab/potion-base-8M" in dict(stage.models(made("bleuberi/grpo_embedding")))
    control = "controls.other.model=Qwen/Qwen3-0.6B"
    assert ("Qwen/Qwen3-0.6B", None) in stage.models(made("min_o1/sft_short", control))


def test_a_model_for_several_nodes_is_fetched_once_before_they_are_asked_for(repo: Repo) -> None:
    for hardware, fetched in (("h100x8", False), ("h100x8x2", True)):
        words = ("bleuberi/grpo", "--set", f"hardware={hardware}")
        done = repo.launch("submit", *words, HF_HUB_OFFLINE="1", PATH="/nowhere")
        assert ("model Qwen/Qwen2.5-7B: cannot be downloaded" in done.stderr) == fetched, done.stderr
        assert done.returncode != 0
