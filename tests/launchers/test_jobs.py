"""The chain of jobs of a run: what each asks for, on one node and on several, and how that becomes sbatch's lines."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from launchers import envs
from launchers.checks import preflight
from launchers.errors import UserError
from launchers.plan import plan as planning
from launchers.plan.plan import Plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import attempts, events, failures
from launchers.run import directory as rundir
from launchers.run.node import free_ports, interface_of, own_address
from launchers.targets import slurm
from launchers.targets.jobs import JobPart, job_parts, seconds
from tests.conftest import Repo
from tests.launchers.conftest import Tool

TWO_NODES = ("sky_t1/sft_2x8", "long_cot/grpo_2x8", "bleuberi/grpo_2x8")


def made(name: str, *settings: str, scale: str | None = None, run: Path = Path("/run")) -> Plan:
    overrides = Overrides(scale, tuple(compose.parse_settings(settings)))
    resolved, faults = preflight.check(compose.resolve(name, overrides))
    assert not faults
    return planning.build(resolved, run)


def jobs(name: str, *settings: str) -> dict[str, JobPart]:
    return {job.name: job for job in job_parts(made(name, *settings))}


def test_generation_has_gpus_and_what_an_api_or_a_cpu_does_has_none() -> None:
    found = jobs("sky_t1/flash")
    assert {name: job.gpus for name, job in found.items()} == {
        "data-1": 0, "data-2": 8, "data-3": 0, "train": 8, "eval": 8, "report": 0,
    }  # fmt: skip
    assert (found["data-1"].cpus, found["train"].cpus, found["report"].cpus) == (16, 96, 2)
    assert jobs("min_o1/sft_short")["data"].gpus == 0
    labelled_by_an_api = jobs("skill_mix/sft_gold")
    assert labelled_by_an_api["data"].gpus == 0


@pytest.mark.parametrize("name", TWO_NODES)
def test_only_the_machines_of_a_recipe_for_two_nodes_differ(name: str) -> None:
    family = name.partition("/")[0]
    base = {"sky_t1": "sft", "long_cot": "grpo_llama_instruct_think", "bleuberi": "grpo"}[family]
    two, one = (compose.resolve(one, Overrides(None)).recipe.model_dump() for one in (name, f"{family}/{base}"))
    differing = {key for key in two if two[key] != one[key]}
    assert differing == {"hardware", "extends"}
    chain = jobs(name)
    assert {job.nodes for part, job in chain.items() if part == "train"} == {2}
    assert {job.nodes for part, job in chain.items() if part != "train"} == {1}


@pytest.mark.parametrize(("hardware", "micro", "accumulation", "world"), [
    ("h100x8", 4, 1, 8), ("h100x8x2", 2, 1, 16), ("h800x8x2", 2, 1, 16), ("h100x8x4", 1, 1, 32),
])  # fmt: skip
def test_the_global_batch_stays_on_any_number_of_nodes(
    hardware: str, micro: int, accumulation: int, world: int
) -> None:
    batch = made("bleuberi/grpo", f"hardware={hardware}").main.batch
    assert (batch.global_batch, batch.micro, batch.accumulation, batch.world) == (32, micro, accumulation, world)


def test_a_global_batch_that_the_machines_cannot_divide_is_refused_before_submission() -> None:
    settings = Overrides(None, tuple(compose.parse_settings(["hardware=h100x8x4"])))
    _, (fault,) = preflight.check(compose.resolve("long_cot/sft_llama_instruct_think", settings))
    assert "16 is not divisible by micro_batch 1 × 32 GPUs = 32" in fault.message
    settings = Overrides(None, tuple(compose.parse_settings(["hardware=h100x8x2", "rollout.tensor_parallel=16"])))
    _, (fault,) = preflight.check(compose.resolve("min_o1/grpo", settings))
    assert (fault.key, "cannot span nodes" in fault.message) == ("rollout.tensor_parallel", True)


@pytest.mark.parametrize("name", TWO_NODES)
def test_scripts_of_two_nodes_pass_shellcheck(name: str, tmp_path: Path) -> None:
    files = rundir.files(made(name, run=Path("/runs of 'me'/$(id)")))
    for script in ("local.sh", "job.sbatch"):
        (tmp_path / script).write_text(files[script])
        done = subprocess.run(["shellcheck", "--severity=style", tmp_path / script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    start = "torchrun 2 8" if name.startswith("sky") else "ray 2 4" if name.startswith("long") else "ray 2 8"
    assert f"-m launchers.run.nodes {start} " in files["local.sh"]


def test_lines_are_linked_by_names_and_ask_for_the_site(repo: Repo) -> None:
    repo.write("configs/sites/here.yaml", "cpu_partition: cpu\npartition: gpu\ncpus_per_task: 64\nmemory: 512G\n")
    repo.write("recipes/min_o1/odd name.yaml", "extends: [sft_short.yaml]\n")
    done = repo.make("sbatch/min_o1/odd name", "DRY_RUN=1", "SITE=here")
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    options = [dict(word[2:].partition("=")[::2] for word in line if word.startswith("--")) for line in lines]
    names = [one["job-name"] for one in options]
    assert names == [f"min_o1-odd-name-{part}" for part in ("data", "train", "eval", "report")]
    assert [one.get("dependency") for one in options] == [None, *(f"afterok:{name}" for name in names[:-1])]
    assert [one.get("partition") for one in options] == ["cpu", None, None, "cpu"]
    assert [one["mem"] for one in options][:2] == ["175112M", "512G"]
    assert all(Path(line[-2]).is_file() and line[0] == "sbatch" for line in lines)


def test_a_site_of_the_users_is_the_default_and_containers_wrap_the_script(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    box = "container: {runtime: %s, image: 'my image.sif', mounts: ['/data:/data']}\nscratch: /scratch\noffline: true\n"
    for runtime in ("pyxis", "apptainer"):
        repo.write(f"configs/sites/{runtime}.yaml", "modules: [cuda]\n" + box % runtime)
        folders = {"HF_HOME": "/hub of 'me'", "POSTTRAIN_CACHE": str(repo.path / ".cache")}
        done = repo.launch("submit", "min_o1/grpo", "--dry-run", POSTTRAIN_SITE=runtime, **folders)
        script = Path(done.stdout.splitlines()[0].split()[-2])
        text = script.read_text()
        checked = subprocess.run(["shellcheck", "--severity=style", script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
        assert text.index("module load cuda") < text.index("set -u")
        assert "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=offline" in text
        for name, value in folders.items():  # sbatch --export=NONE passes none of them on
            assert f"export {name}={shlex.quote(value)}\n" in text
        assert "HF_DATASETS_CACHE" not in text  # what `make stage` has fetched stays in view
        assert "/scratch/posttrain-$UID" in text
        assert ("--container-image=my image.sif" if runtime == "pyxis" else "'my image.sif'") in text
    done = repo.launch("submit", "min_o1/grpo", "--dry-run", POSTTRAIN_SITE="nowhere")
    assert "POSTTRAIN_SITE: site: no profile 'nowhere'" in done.stderr


@pytest.mark.parametrize(("text", "key"), [
    ("scratch: ~/x", "scratch"), ("scratch: local", "scratch"), ('scratch: "/a$(id)"', "scratch"),
    ("scratch: '/a\"b'", "scratch"), ("scratch: /a`id`", "scratch"), ('environ: {PATH: "/opt/x/bin:$PATH"}', "environ"),
    ("container: {runtime: pyxis, image: ''}", "container.image"), ("environ: {A: true}", "environ"),
    ("container: {runtime: pyxis, image: $HOME/x.sif}", "container.image"), ("account: [a]", "account"),
    ("container: {runtime: pyxis, image: x, mounts: [/data]}", "container.mounts"), ("memory: 1.5", "memory"),
])  # fmt: skip
def test_site_values_that_cannot_work_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, key: str
) -> None:
    monkeypatch.setattr(slurm, "FOLDER", tmp_path)
    (tmp_path / "odd.yaml").write_text(f"{text}\n")
    with pytest.raises(UserError) as error:
        slurm.load_site("odd")
    assert str(error.value).startswith(f"configs/sites/odd.yaml:1: {key}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("scratch", "expanded"), [
    ("$TMPDIR", "/tmp of me"), ("/local/$SLURM_JOB_ID", "/local/7"), ("${TMPDIR}/it's", "/tmp of me/it's"),
])  # fmt: skip
def test_scratch_is_expanded_on_the_node_and_numbers_are_text(repo: Repo, scratch: str, expanded: str) -> None:
    site = f'scratch: "{scratch}"\nmemory: 512000\naccount: 1234\nenviron: {{OMP_NUM_THREADS: 8}}\n'
    repo.write("configs/sites/odd.yaml", site)
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=odd")
    text = (Path(repo.launch("render", *words).stdout.strip()) / "job.sbatch").read_text()
    assert "export OMP_NUM_THREADS=8\n" in text
    assert "#SBATCH --account=1234\n" in text
    assert "#SBATCH --mem=512000\n" in text
    (line,) = [line for line in text.splitlines() if line.startswith("export POSTTRAIN_SCRATCH")]
    environ = {"TMPDIR": "/tmp of me", "SLURM_JOB_ID": "7", "PATH": "/usr/bin:/bin"}
    show = ["bash", "-c", f'{line}; printf %s "$POSTTRAIN_SCRATCH"']
    shown = subprocess.run(show, env=environ, capture_output=True, text=True).stdout
    assert shown.rpartition("/posttrain-")[0] == expanded


@pytest.mark.parametrize(("text", "found"), [
    ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86400), ("1-2:30", 95400), ("2-00:00:01", 172801),
])  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(text: str, found: int) -> None:
    assert seconds(text) == found


LINES = yaml.safe_load(Path(__file__).with_name("failure_lines.yaml").read_text())


def test_every_entry_of_the_known_failures_has_lines() -> None:
    assert {name for name, _, _ in failures._known()} == LINES.keys()


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in LINES.items() for line in lines])
def test_usual_failures_are_recognised_each_as_itself(name: str, line: str) -> None:
    names = [one.name for one in failures.recognise(f"all well\n{line}\n", "log")]
    assert names == ([] if name == "harmless" else [name])


def test_a_submission_leaks_nothing_of_a_surrounding_job() -> None:
    given = {"SLURM_CONF": "/c", "SLURM_JOB_ID": "1", "SBATCH_PARTITION": "x", "PMIX_RANK": "0", "PATH": "/bin"}
    assert slurm.clean_environ(given) == {"SLURM_CONF": "/c", "PATH": "/bin"}


def _attempt(run: Path, monkeypatch: pytest.MonkeyPatch, restarts: int, job: str = "7") -> int:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    return attempts.main([str(run), "5", "train"])


def test_attempts_are_counted_and_end_after_the_sites_number(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for restarts in range(5):
        events.append(run, "train_step", label="after", step=restarts + 1, total=10)
        assert _attempt(run, monkeypatch, restarts) == 0
    assert _attempt(run, monkeypatch, 5) == 3
    recorded = [event["attempt"] for event in events.read(run) if event["event"] == "attempt"]
    assert recorded == [1, 2, 3, 4, 5, 6]


def test_attempts_without_progress_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events.append(run, "train_step", label="after", step=4, total=10)
    assert [_attempt(run, monkeypatch, restarts) for restarts in range(4)] == [0, 0, 0, 3]
    assert _attempt(run, monkeypatch, 0, job="8") == 0  # another job begins anew


def test_a_control_that_trains_after_the_recipe_is_progress(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events.append(run, "train_step", label="after", step=100, total=100)
    for restarts in range(5):
        events.append(run, "train_step", label="random", step=10 * (restarts + 1), total=100)
        assert _attempt(run, monkeypatch, restarts) == 0


def test_an_allocation_of_too_few_nodes_is_refused(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(repo.launch("render", "sky_t1/sft_2x8").stdout.strip())
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    assert _attempt(run, monkeypatch, 0) == 2


def test_addresses_follow_routes_and_ports_that_are_taken_are_passed_over() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    first = free_ports(3, 20_000, 20)
    with socket.socket() as taken:
        taken.bind(("", first[1]))
        assert free_ports(3, 20_000, 20)[0] > first[0]


def test_status_shows_pace_and_metrics(run: Path, repo: Repo) -> None:
    for step, second in ((1, 0), (2, 10), (3, 20)):
        event = {"time": f"2026-01-01T00:00:{second:02}.000+00:00", "event": "train_step", "label": "after"}
        with (run / "events.jsonl").open("a") as log:
            log.write(json.dumps({**event, "step": step, "total": 10, "loss": 0.5}) + "\n")
    (found,) = json.loads(repo.launch("status", "--json").stdout)
    assert (found["eta_s"], found["metrics"], found["scheduler"]) == (70.0, {"loss": 0.5}, [])


def test_names_are_plain_whatever_recipes_are_called() -> None:
    plan = made("min_o1/sft_short")
    odd = "min_o1/a|b (c)"
    assert slurm.job_name(replace(plan, resolved=replace(plan.resolved, name=odd)), "train") == "min_o1-a-b-c--train"


def test_an_environment_is_copied_to_the_nodes_own_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, scratch = tmp_path / "cache", tmp_path / "scratch"
    made_env = cache / "envs" / "core-123"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made_env], check=True)
    python = made_env / "bin" / "python"
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))
    assert envs.local_copy(python) == python
    (made_env / ".complete").touch()
    monkeypatch.setenv("POSTTRAIN_SCRATCH", str(scratch))
    copied = envs.local_copy(python)
    assert copied == scratch / "envs" / "core-123" / "bin" / "python"
    asked = [copied, "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout.strip() == str(copied.parent.parent)
    first = copied.parent.parent.stat().st_ctime_ns
    assert envs.local_copy(python) == envs.local_copy(copied) == copied  # another node's path, too
    assert copied.parent.parent.stat().st_ctime_ns == first


def test_a_container_gets_the_script_and_its_exit_status_comes_back(repo: Repo, tool: Tool, tmp_path: Path) -> None:
    repo.write(
        "configs/sites/box.yaml", "container: {runtime: apptainer, image: '/images/my box.sif', mounts: ['/d:/d']}\n"
    )
    run = Path(repo.launch("render", "min_o1/sft_long", "--scale", "mini", "--set", "site=box").stdout.strip())
    tool("apptainer", 'printf "%s\\n" "$@" > "$OUT"\nexit 7')
    environ = {**repo.environ(), "SLURM_JOB_ID": "1", "OUT": str(tmp_path / "said")}
    done = subprocess.run(["bash", run / "job.sbatch", "data"], env=environ, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    words = (tmp_path / "said").read_text().splitlines()
    assert words[0] == "exec"
    assert words[-4:] == ["/images/my box.sif", "bash", str(run / "local.sh"), "data"]
    assert words[words.index("--bind") + 1].endswith(",/d:/d")


def test_a_signal_before_the_time_limit_stops_the_script_and_says_so(run: Path, repo: Repo, tool: Tool) -> None:
    (run / "local.sh").write_text(
        'trap "sleep 0.5; echo ended; exit 9" TERM\ntouch "$(dirname "$0")/started"\nsleep 60 & wait\n'
    )
    tool("squeue", "echo 2:30")
    environ = {**repo.environ(), "SLURM_JOB_ID": "1"}
    text = (run / "job.sbatch").read_text().replace("{1..90}", "{1..2}")
    job = subprocess.Popen(
        ["bash", "-c", text, "job", "data"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 60
    while not (run / "started").exists() and time.monotonic() < end:
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    said, errors = job.communicate(timeout=60)
    assert (job.returncode, said.decode().splitlines()[-1:]) == (9, ["ended"]), errors
    assert b"error: the time limit is reached: submit it again with a longer time_limit" in errors
    assert (run / "stop").exists()
