"""How long the launcher takes to answer, beside a Python that imports the same libraries.

make bench
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

VERBS = {
    "--help": ["-m", "launchers", "--help"],
    "list": ["-m", "launchers", "list"],
    "show": ["-m", "launchers", "show", "min_o1/sft_short"],
    "check (one)": ["-m", "launchers", "check", "min_o1/sft_short"],
    "check (all)": ["-m", "launchers", "check"],
    "plan": ["-m", "launchers", "plan", "min_o1/sft_short", "--scale", "mini"],
    "python -c pass": ["-c", "pass"],
    "import pydantic, typer, yaml": ["-c", "import pydantic, typer, yaml"],
}


def measure(words: list[str], repeats: int = 7) -> tuple[float, float]:
    """Medians of CPU and wall seconds of one command."""
    cpu, wall = [], []
    for _ in range(repeats):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - began)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(cpu), statistics.median(wall)


def main() -> None:
    """Print the table."""
    print(f"{'command':<30} {'CPU s':>7} {'wall s':>7}")
    for name, words in VERBS.items():
        cpu, wall = measure(words)
        print(f"{name:<30} {cpu:>7.2f} {wall:>7.2f}")


if __name__ == "__main__":
    main()
