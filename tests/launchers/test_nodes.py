"""A command on all nodes of an allocation: addresses, ports, limits, lost nodes; with stand-ins for srun and Ray."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launchers.run import node, nodes
from tests.launchers.conftest import Tool


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
    allocation: None,
    tool: Tool,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "^docker0")  # a form that Gloo does not take
    tool("srun", EACH_NODE)
    show = (
        "import os; print({k: v for k, v in os.environ.items() if k.startswith(('PET_', 'GLOO_', 'VLLM_', 'NCCL_'))})"
    )
    assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", show]) == 0
    said = capfd.readouterr()
    for option in (
        "--kill-on-bad-exit=1",
        "--wait=0",
        "--cpus-per-task=3",
        "--ntasks-per-node=1",
        "--export=ALL",
        "--immediate=300",
        "--mem=0",
    ):
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
        assert "'NCCL_SOCKET_IFNAME': '^docker0'" in text
        assert "'VLLM_HOST_IP': '127.0.0.1'" in text


def test_a_node_whose_name_means_the_loopback_interface_is_refused(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str]
) -> None:
    tool("scontrol", 'if [ "$2" = hostnames ]; then printf "n0\\nn1\\n"; else echo "NodeAddr=localhost Port=1"; fi')
    tool("srun", EACH_NODE)
    assert nodes.main(["torchrun", "2", "8", "--", "true"]) == 1
    said = capfd.readouterr()
    assert "error: localhost resolves to the loopback address 127.0.0.1" in said.out
    assert "srun" not in said.err


def test_the_failure_of_another_node_is_shown_with_its_log(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str]
) -> None:
    tool("srun", EACH_NODE)
    fails = "import os, sys; sys.exit('ValueError: bad node') if os.environ['PET_NODE_RANK'] == '1' else None"
    assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", fails]) == 1
    assert "ValueError: bad node" in capfd.readouterr().out


def test_the_log_of_a_node_that_is_ended_for_anothers_failure_is_not(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kills = EACH_NODE.replace("status=0;", 'wait "${pids[0]}"; kill -TERM -- "-${pids[1]}"; status=0;')
    tool("srun", f'[ "${{!#}}" != true ] || exit 0\nset -m\n{kills}')
    fails = """if True:
        import os, sys, time
        if os.environ["PET_NODE_RANK"] == "1":
            print("SignalException", flush=True)
            time.sleep(60)
        while not os.path.exists(sys.argv[1]) or "Signal" not in open(sys.argv[1]).read():
            time.sleep(0.1)
        sys.exit("ValueError: bad row")"""
    other = tmp_path / "train-after.node1.log"
    assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", fails, str(other)]) == 1
    assert "SignalException" in other.read_text()
    assert "SignalException" not in capfd.readouterr().out


def test_a_port_that_another_job_has_taken_is_passed_over(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str]
) -> None:
    tool("srun", EACH_NODE)
    show = "import os; print('port', os.environ['PET_MASTER_PORT'])"
    with socket.socket() as taken:
        taken.bind(("", 20_000 + 77 * 20))
        assert nodes.main(["torchrun", "2", "8", "--", sys.executable, "-c", show]) == 0
    assert f"port {20_000 + 78 * 20}" in capfd.readouterr().out


def test_a_node_that_starts_no_task_any_more_is_lost_and_its_job_starts_anew(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str]
) -> None:
    tool("srun", f'[ "${{!#}}" != true ] || exit 1\n{EACH_NODE}')
    fails = [sys.executable, "-c", "import os, sys; sys.exit('connection closed by peer')"]
    assert nodes.main(["torchrun", "2", "8", "--", *fails]) == nodes.LOST
    assert capfd.readouterr().out.endswith("error: a node or Ray's head is lost\n")


def test_nodes_are_asked_beside_a_step_that_holds_all_memory(tool: Tool, tmp_path: Path) -> None:
    tool("srun", f'echo "$*" > {tmp_path}/asked')
    assert nodes._all_answer(2)
    assert {"--overlap", "--mem=0"} <= set((tmp_path / "asked").read_text().split())


def test_cpus_are_those_that_a_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    count = "from launchers.run import node; print(node._cpus())"
    cpu = str(min(os.sched_getaffinity(0)))
    assert subprocess.run(["taskset", "-c", cpu, sys.executable, "-c", count], capture_output=True).stdout == b"1\n"


HEAD = """
import socket, sys, time
address = next(word for word in sys.argv if word.startswith("127.0.0.1:"))
server = socket.create_server(("127.0.0.1", int(address.partition(":")[2])))
time.sleep(float(sys.argv[1]))
server.close()
time.sleep(float(sys.argv[2]))
"""
SAME_ADDRESS = 'test "${RAY_ADDRESS%:*}" = "$VLLM_HOST_IP" && exit 3'
READY = 'until (exec 3<>"/dev/tcp/${3/://}") 2>/dev/null; do sleep 0.1; done; exit 0'


@pytest.mark.parametrize(("listens", "lives", "ready", "command", "status"), [
    (60, 0, READY, SAME_ADDRESS, 3), (60, 0, READY, "exit 0", 0), (3, 0, READY, "exec sleep 60", nodes.LOST),
    (3, 60, READY, "sleep 4; exit 1", nodes.LOST), (2, 0, "exec sleep 60", "", 1),
])  # fmt: skip
def test_the_commands_exit_status_counts_and_a_lost_cluster_ends_it(
    allocation: None, tool: Tool, capfd: pytest.CaptureFixture[str], listens: int, lives: int, ready: str,
    command: str, status: int,
) -> None:  # fmt: skip
    head = shlex.join([sys.executable, "-c", HEAD, str(listens), str(lives)])
    tool("srun", f'[ "${{!#}}" != true ] || exit 0\nexec {head} "$@"')
    python = tool("python-with-ray", f'if [ "$2" = launchers.run.ray_ready ]; then {ready}; fi\n{command}')
    began = time.monotonic()
    assert nodes.main(["ray", "2", "8", "--", str(python), "-m", "training"]) == status
    assert time.monotonic() - began < 30
    said = capfd.readouterr().out
    assert said.endswith("error: a node or Ray's head is lost\n") == (status == nodes.LOST)
    assert ("the Ray cluster ended" in said) == (command in ("", "exec sleep 60"))
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
    with pytest.raises(OSError, match="no connection to"):
        node.wait_for(f"127.0.0.1:{port}", 1)


def test_ray_is_told_every_count_and_port_and_its_sockets_stay_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    (tmp_path / "lib/python3.11/site-packages/grpc").mkdir(parents=True)
    python = str(tmp_path / "bin/python")
    words = {rank: node._ray_words(python, "10.0.0.1:23000", rank, f"10.0.0.{rank + 1}", "8") for rank in (0, 1)}
    ports = [int(word.partition("=")[2]) for one in words.values() for word in one if "port=" in word]
    assert len(set(ports)) == len(ports) == 1 + 2 * len(node.RAY_PORTS) - 1
    assert all(20_000 <= port < 32_768 for port in ports)
    assert not any("client" in word for word in node._ray_words(sys.executable, "10.0.0.1:23000", 0, "10.0.0.1", "8"))
    for one in words.values():
        assert {"--num-cpus=5", "--num-gpus=8", "--block", "--disable-usage-stats"} <= set(one)
    assert "--node-ip-address=10.0.0.2" in words[1]
    log = tmp_path / "log"
    monkeypatch.setattr(node.tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    folder = node._temporary()
    assert folder.startswith("/tmp/ray-")
    show = [sys.executable, "-c", "import sys; sys.exit(int(sys.argv[1]))"]
    for status in (0, 7):
        assert node._ray_node([*show, str(status), f"--temp-dir={folder}"], None, dict(os.environ), log) == status
        assert not Path(folder).exists()


@pytest.mark.parametrize(("free", "megabytes", "bytes_"), [
    (64e6, "200000", 1e8), (1e12, "20000", 0.3 * 20_000 * 2**20), (1e12, "", 0.3 * 2e10), (1e12, "999999", 2e10),
])  # fmt: skip
def test_rays_object_store_fits_into_the_jobs_memory_and_the_nodes_shared_memory(
    monkeypatch: pytest.MonkeyPatch, free: float, megabytes: str, bytes_: float
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", megabytes)
    monkeypatch.setattr(node.shutil, "disk_usage", lambda _: SimpleNamespace(free=int(free)))
    assert node._objects() == int(bytes_)


@pytest.mark.parametrize(
    ("limits", "files", "warned"), [("ulimit -Sn 256; ulimit -Hn 4096", "4096", False), ("ulimit -n 512", "512", True)]
)
def test_a_node_may_open_as_many_files_as_its_hard_limit_allows(limits: str, files: str, warned: bool) -> None:
    code = "from launchers.run import node; import resource as r; node._more_files(); print(r.getrlimit(7)[0])"
    done = subprocess.run(
        ["bash", "-c", f"{limits}; exec {sys.executable} -c '{code}'"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-1] == files
    assert ("this node allows 512 open files" in done.stdout) == warned
