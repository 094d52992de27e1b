"""Compilers and compiled programs in the sandbox: permitted and forbidden actions, attacks on compilers."""

from __future__ import annotations

import glob
import shutil
import subprocess
import sys

import pytest

from rewards import RewardError
from rewards.sandbox import Case, Limits, Sandbox

GXX = shutil.which("g++")
ADD = b"""
#include <iostream>
#include <unistd.h>
int main(int argc, char** argv) {
  int a; std::cin >> a;
  (void)!write(3, "result", 6);
  std::cout << a + 1 << argv[1] << std::endl;
  return environ && *environ ? 1 : 0;
}
"""


@pytest.mark.parametrize("linking", ["-O1", "-static"])
def test_build_and_execute(box: Sandbox, linking: str) -> None:
    assert GXX is not None, "install g++"
    built = box.build({"src/add.cpp": ADD}, [GXX, linking, "src/add.cpp", "-o", "add"], outputs=["add", "missing"])
    assert (built.status, list(built.outputs)) == ("ok", ["add"]), built
    assert built.cpu_s > 0
    cases = [Case(b"1", result=True), Case(b"41", result=True)]
    runs = box.execute(built.outputs["add"], ["add", "!"], cases)
    assert [(ran.status, ran.stdout) for ran in runs] == [("ok", b"2!\n"), ("ok", b"42!\n")]
    assert [ran.result for ran in runs] == [b"result"] * 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("for (;;) {}", {"timeout"}),
        ("for (;;) pause();", {"timeout"}),
        ("for (;;) puts(\"xxxxxxxxxxxxxxxx\");", {"output_limit"}),
        ("for (;;) new char[1 << 20]();", {"memory"}),
        ("*(volatile int*)8 = 1;", {"signal"}),
        ("abort();", {"signal"}),
        ("return 3;", {"exit"}),
        ("return fork() >= 0 ? 0 : 9;", {"exit"}),
        ("execl(\"/bin/true\", \"true\", (char*)0); return 9;", {"exit"}),
        ("return open(\"/etc/passwd\", 0) >= 0 || socket(2, 1, 0) >= 0 || kill(getppid(), 9) == 0 ? 0 : 9;", {"exit"}),
        ("for (int i = 3; i < 999; i++) if (fcntl(i, 1) != -1) return 0; return 9;", {"exit"}),
    ],
)  # fmt: skip
def test_compiled_program_in_isolation(box: Sandbox, body: str, status: set[str]) -> None:
    assert GXX is not None, "install g++"
    source = "#include <cstdio>\n#include <cstdlib>\n#include <unistd.h>\n#include <fcntl.h>\n#include <signal.h>\n"
    source += "#include <sys/socket.h>\nint main() { " + body + " }"
    built = box.build({"a.cpp": source.encode()}, [GXX, "a.cpp"])
    assert built.status == "ok", built
    limits = Limits(cpu_s=0.5, wall_s=1.5, memory_mb=128, output_kb=64)
    ran = box.execute(built.outputs["a.out"], ["a.out"], [Case()], limits)[0]
    assert ran.status in status, ran
    assert (ran.message in ("exit code 3", "exit code 9")) == (status == {"exit"}), ran


COMPILER_BOMBS = {
    "/dev/zero": '#include "/dev/zero"',
    "/etc/passwd": '#include "/etc/passwd"',
    "/proc/self/environ": '#include "/proc/self/environ"',
    "incbin": 'asm(".incbin \\"/etc/passwd\\"");\nint main() {}',
    "itself": '#include __FILE__',
    "templates": "template <int N> struct A { static const int v = A<N + 1>::v; }; int main() { return A<0>::v; }",
    "constexpr": "constexpr long f(long n) { long s = 0; for (long i = 0; i < n; i++) s += i; return s; }\n"
    "constexpr long x = f(1L << 60);\nint main() {}",
    "memory": "template <class T, int N> struct A { A<A<T, N - 1>, N - 1> a; A<A<int, N - 1>, N - 1> b; };\n"
    "template <class T> struct A<T, 0> {};\nA<int, 30> a;\nint main() {}",
    "size": "char x[1L << 40] = {1};\nint main() {}",
    "nesting": "int x = " + "(" * 100_000 + "1" + ")" * 100_000 + ";\nint main() {}",
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILER_BOMBS)
def test_compiler_bomb(box: Sandbox, name: str) -> None:
    assert GXX is not None, "install g++"
    limits = Limits(cpu_s=2, wall_s=60, memory_mb=1024, output_kb=4096, open_files=256)
    argv = [GXX, "-fconstexpr-ops-limit=999999999999", "-fconstexpr-loop-limit=2147483647", "a.cpp"]
    built = box.build({"a.cpp": COMPILER_BOMBS[name].encode()}, argv, limits)
    assert built.status in ("exit", "timeout", "memory", "signal"), built
    assert built.outputs == {}
    assert "root:" not in built.log
    assert len(built.log) <= 64 << 10
    assert box.build({"a.cpp": b"int main() {}"}, [GXX, "a.cpp"]).status == "ok"


def test_invalid_builds(box: Sandbox) -> None:
    with pytest.raises(RewardError, match="no compiler '/bin/no-such'"):
        box.build({}, ["/bin/no-such"])
    with pytest.raises(RewardError, match=r"'\.\./x' is not a path inside"):
        box.build({"../x": b""}, [sys.executable if GXX is None else GXX])
    broken = box.execute(b"not an executable", ["x"], [Case()])[0]
    assert broken.status == "exit"
    assert "OSError" in broken.message


def test_a_build_reads_no_packages(box: Sandbox) -> None:
    found = glob.glob("/usr/lib/python3*/dist-packages/**/*.py", recursive=True)
    assert found, "Debian's Python has packages of its own"
    assert GXX is not None, "install g++"
    built = box.build({"a.cpp": f'asm(".incbin \\"{found[0]}\\"");'.encode()}, [GXX, "-c", "a.cpp", "-o", "a.out"])
    assert built.status == "exit"


@pytest.mark.parametrize(
    ("flags", "allowed"), [(0, True), (0x4000 | 0x100, True), (0x10000000, False), (0x20000 | 0x4000000, False)]
)
def test_a_build_may_fork_but_not_create_namespaces(flags: int, allowed: bool) -> None:
    """clone(2) under the filter of builds: plain, as vfork, with a user namespace, with mount and host-name ones."""
    program = f"""
import ctypes, os
from rewards.sandbox import filters
from rewards.sandbox.inside import restrict
clone = 56 if os.uname().machine == "x86_64" else 220
filter = restrict.Filter(filters.write("build"))
restrict.give_up_rights(None)
filter.install()
pid = restrict.LIBC.syscall(clone, ctypes.c_long({flags} & ~0x100 | 17), 0, 0, 0, 0)
if pid == 0: os._exit(0)
print(pid > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == str(allowed), done.stderr
