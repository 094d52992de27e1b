"""Known faults of launching on clusters, each in the smallest situation that shows it, with stand-ins for its tools."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from launchers.checks import preflight
from launchers.errors import UserError
from launchers.plan import plan as planning
from launchers.plan.plan import Plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from launchers.run import events, node, nodes, stage, submit
from launchers.run import status as states
from launchers.study import sweep
from launchers.targets import slurm
from tests.conftest import House

Tool = Callable[[str, str], Path]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Puts a script of a name before everything on PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def allocation(tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two nodes, whose names are this host's loopback interface to itself."""
    values = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "n[0-1]", "SLURM_CPUS_PER_TASK": "3"}
    values["POSTTRAIN_LOG"] = str(tmp_path / "train-after.log")
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    tool(
        "scontrol",
        'if [ "$2" = hostnames ]; then printf "n0\\nn1\\n"; else echo "NodeName=$3 NodeAddr=127.0.0.1 Port=1"; fi',
    )


EACH_NODE = """
echo "srun $*" >&2
while [ "${1#--}" != "$1" ]; do shift; done
for id in 0 1; do SLURM_NODEID=$id "$@" & pids[id]=$!; done
status=0; for id in 0 1; do wait "${pids[id]}" || status=$?; done; exit $status
"""


def test_torchrun_gets_rank_address_and_port_of_the_allocation_and_never_a_default(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tool("srun", EACH_NODE)
    show = "import os; print({k: v for k, v in os.environ.items() if k.startswith(('PET_', 'GLOO_'))})"
    assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", show]) == 0
    said = capfd.readouterr()
    for option in ("--kill-on-bad-exit=1", "--wait=0", "--cpus-per-task=3", "--ntasks-per-node=1", "--export=ALL"):
        assert option in said.err
    first = next(line for line in said.out.splitlines() if line.startswith("{"))
    other = (tmp_path / "train-after.node1.log").read_text()
    assert "'PET_NODE_RANK': '0'" in first
    assert "'PET_NODE_RANK': '1'" in other
    port = 20_000 + 77 * 20
    for text in (first, other):
        assert "'PET_MASTER_ADDR': '127.0.0.1'" in text
        assert f"'PET_MASTER_PORT': '{port}'" in text
        assert "'GLOO_SOCKET_IFNAME': 'lo'" in text


def test_the_failure_of_another_node_is_shown_with_its_log(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str]
) -> None:
    tool("srun", EACH_NODE)
    fails = "import os, sys; sys.exit('ValueError: bad node') if os.environ['PET_NODE_RANK'] == '1' else None"
    assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", fails]) == 1
    assert "ValueError: bad node" in capfd.readouterr().out


def test_a_port_that_another_job_has_taken_is_passed_over(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str]
) -> None:
    tool("srun", EACH_NODE)
    show = "import os; print('port', os.environ['PET_MASTER_PORT'])"
    with socket.socket() as taken:
        taken.bind(("", 20_000 + 77 * 20))
        assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", show]) == 0
    assert f"port {20_000 + 78 * 20}" in capfd.readouterr().out


@pytest.mark.parametrize(("cluster", "command", "status"), [
    ("exec sleep 60", "exit 3", 3), ("exec sleep 60", "exit 0", 0), ("sleep 2; exit 1", "exec sleep 60", 1),
])  # fmt: skip
def test_the_commands_exit_status_counts_and_a_lost_cluster_ends_it(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str], cluster: str, command: str, status: int
) -> None:
    tool("srun", cluster)
    python = tool("python-with-ray", f'[ "$2" = launchers.run.ray_ready ] && exit 0\n{command}')
    began = time.monotonic()
    assert nodes.main(["ray", "2", "8", "--", str(python), "-m", "training"]) == status
    assert time.monotonic() - began < 20
    lost = "a node or its head is lost" in capfd.readouterr().out
    assert lost == (status == 1)
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_cluster_is_waited_for_by_looking_not_by_sleeping() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def listen() -> None:
        listener.bind(("127.0.0.1", port))
        listener.listen()

    threading.Timer(1.5, listen).start()
    began = time.monotonic()
    node.wait_for(f"127.0.0.1:{port}", 30)
    assert 1 < time.monotonic() - began < 10
    listener.close()
    with pytest.raises(OSError, match="nothing answers at"):
        node.wait_for(f"127.0.0.1:{port}", 1)


def test_ray_is_told_every_count_and_port_and_its_sockets_stay_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    words = {rank: node._ray_words("python", "10.0.0.1:23000", rank, f"10.0.0.{rank + 1}", "8") for rank in (0, 1)}
    ports = [int(word.partition("=")[2]) for one in words.values() for word in one if "port=" in word]
    assert len(set(ports)) == len(ports) == 1 + 2 * len(node.RAY_PORTS) - 1
    assert all(20_000 <= port < 32_768 for port in ports)
    for one in words.values():
        assert {"--num-cpus=5", "--num-gpus=8", "--block", "--disable-usage-stats"} <= set(one)
    assert "--node-ip-address=10.0.0.2" in words[1]
    monkeypatch.setattr(node.tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    show = [sys.executable, "-c", f"import sys; open({str(tmp_path / 'said')!r}, 'w').write(sys.argv[1])"]
    with (tmp_path / "log").open("w") as log:
        assert node._ray_node(show, None, dict(os.environ), log.fileno()) == 0
    assert (tmp_path / "said").read_text().startswith("--temp-dir=/tmp/ray-")
    assert not Path((tmp_path / "said").read_text().partition("=")[2]).exists()


def plan(name: str, *settings: str, run: Path = Path("/run")) -> Plan:
    resolved, faults = preflight.check(compose.resolve(name, Overrides(None, tuple(compose.parse_settings(settings)))))
    assert not faults
    return planning.build(resolved, run)


def test_verl_on_several_nodes_writes_to_absolute_paths_and_joins_the_jobs_cluster_only() -> None:
    made = plan("bleuberi/grpo_2x8")
    config = yaml.safe_load(rundir.files(made)["train/verl.yaml"])
    assert (config["trainer"]["nnodes"], config["trainer"]["n_gpus_per_node"]) == (2, 8)
    assert config["trainer"]["default_local_dir"].startswith("/run/")
    assert config["ray_kwargs"]["ray_init"] == {"address": "auto"}
    assert "RAY_ADDRESS" in rundir.files(made)["local.sh"].split("for name in ")[1].split(";")[0]


def test_too_few_cpus_for_verls_workers_are_an_error_before_submission(house: House) -> None:
    profile = (house.path / "configs/hardware/h100x8x2.yaml").read_text().replace("cpus: 96", "cpus: 16")
    house.write("configs/hardware/small.yaml", profile)
    done = house.launch("check", "bleuberi/grpo", "--set", "hardware=small")
    assert "a node has 16 CPUs, and verl's workers on its 8 GPUs take 25" in done.stderr


@pytest.fixture
def run(house: House) -> Path:
    return Path(house.launch("render", "min_o1/sft_long", "--scale", "mini").stdout.strip())


def test_slurm_that_does_not_answer_makes_no_run_failed(run: Path, tool: Tool) -> None:
    rundir.add_job(run, "5", "train")
    tool("squeue", 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1')
    assert (states.status(run).state, states.status(run).scheduler) == ("new", [])
    tool("squeue", "echo '5|OUT_OF_MEMORY|None'")
    assert states.status(run).state == "failed"
    tool("squeue", "echo '5|PENDING|DependencyNeverSatisfied'")
    assert states.status(run).state == "failed"
    tool("squeue", "echo '5|REQUEUED|None'")
    assert states.status(run).state == "queued"


def test_a_job_that_was_accepted_without_an_answer_is_known_by_its_comment(run: Path, tool: Tool) -> None:
    tool("squeue", f"[[ $* = *--me* ]] && echo '9|None|{run.name}'; exit 0")
    assert submit.alive(run) == ["9"]
    tool("squeue", "[[ $* = *--me* ]] && echo '9|None|another run'; exit 0")
    assert submit.alive(run) == []


def test_what_slurm_says_of_a_partition_comes_with_what_to_change(tool: Tool) -> None:
    tool("sbatch", 'echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1')
    with pytest.raises(Exception, match=r"invalid partition specified: nowhere: partition in configs/sites"):
        slurm.submit(["sbatch", "--parsable", "job.sbatch"])


@pytest.mark.parametrize("array", [False, True])
def test_with_chain_a_job_requeues_itself_by_the_number_of_its_own_task(
    house: House, tool: Tool, tmp_path: Path, array: bool
) -> None:
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "chain=true")
    run = Path(house.launch("render", *words).stdout.strip())
    (run / "local.sh").write_text('touch "$(dirname "$0")/started"\nsleep 60 & wait\n')
    tool("squeue", "echo 2:30")
    tool("scontrol", f'echo "$*" > {tmp_path}/asked; kill -KILL $PPID')
    environ = {**house.environ(), "SLURM_JOB_ID": "8"}
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
    with pytest.raises(UserError, match="3 runs, and the cluster's MaxArraySize is 2"):
        sweep.submit(sweep.Sweep(tmp_path, [None] * 3, []))  # type: ignore[list-item]


@pytest.mark.parametrize(("grid", "said"), [
    ("seed=1,2", "name what varies"),
    ("train.steps=1,1", "its values once each"),
    ("train.steps=1 train.steps=2", "each key once"),
])  # fmt: skip
def test_a_grid_that_says_nothing_or_too_much_is_refused(grid: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sweep.study_of("min_o1/sft_short", grid.split())


def test_compute_nodes_without_a_network_need_a_staged_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.write("configs/sites/dark.yaml", "offline: true\n")
    words = ("min_o1/sft_long", "--scale", "mini", "--set", "site=dark")
    refused = house.launch("submit", *words)
    assert "compute nodes have no network: make stage/min_o1/sft_long on a login node first" in refused.stderr
    staged = house.launch("stage", *words, "--json")
    assert staged.returncode == 0, staged.stderr
    told = json.loads(staged.stdout)
    assert any(line.startswith("environment llamafactory: ") for line in told["staged"])
    assert "rows of eval/after.spec.json: load" in told["staged"]
    again = house.launch("submit", *words, PATH="/nowhere")
    assert "sbatch is not on PATH" in again.stderr


def test_a_running_command_counts_its_heartbeat(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [sys.executable, "-m", "launchers.run.supervise", str(run), "data", "", "--", "sleep", "1"]
    assert subprocess.run(words).returncode == 0
    assert (run / events.HEARTBEAT).read_text().split()[0] == "1"
    old = time.time() + 3600  # a file server whose clock is ahead
    os.utime(run / events.HEARTBEAT, (old, old))
    assert states.status(run).heartbeat > str(next(events.read(run))["time"])


def test_models_to_fetch_are_those_of_training_and_rewards() -> None:
    found = stage.models(plan("long_cot/grpo_2x8"))
    assert found["Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"] == "d4117fbfd81b72f41b96341238baa1e3e90a4ce1"
    assert "meta-llama/Llama-3.1-8B-Instruct" in found
