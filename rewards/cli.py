"""Command line of the rewards package.

    python -m rewards score --reward math --input rows.jsonl --output scored.jsonl [--param k=v]… [--workers N]
    python -m rewards list
    python -m rewards selfcheck [--input rows.jsonl --reward math]
    python -m rewards serve --reward math --input rows.jsonl --port 8000

Exit status: 0 done; 1 selfcheck found an attack that succeeds or a reference answer that does not grade as correct;
2 usage error, in one line; 3 too many errors or timeouts; 130 Ctrl-C.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rewards import sandbox
from rewards.base import FailureLimit, Reward
from rewards.errors import RewardError, TooManyFailures
from rewards.params import checked
from rewards.registry import REGISTRY, load, reward_class
from rewards.scorer import check_columns, read_lines, score_file
from rewards.serving.app import ServerSettings

_CALL: dict[str, Any] = {"kind": "call", "function": "f", "cases": [{"args": [1], "expected": 2}]}
# Kinds of attacks: the reward, a row, and a completion with a placeholder for the program or answer.
_KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "python": ("code", {"tests": _CALL}, "```python\n%s\n```"),
    "cpp": ("code", {"tests": {**_CALL, "language": "cpp", "declaration": "int f(int x);"}}, "```cpp\n%s\n```"),
    "math": ("math", {"answer": "x^2+1"}, r"\boxed{%s}"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:  # exit at once: the interpreter would wait for running threads
        print("interrupted; the same command resumes" if args.run is _score else "interrupted", file=sys.stderr)
        sys.stdout.flush()
        os._exit(130)
    except BrokenPipeError:  # the reader closed the pipe: `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RewardError, OSError) as problem:
        if isinstance(problem, OSError) and problem.filename:
            problem = RewardError(f"{problem.filename}: {problem.strerror}")
        print(f"error: {problem}", file=sys.stderr)
        return 3 if isinstance(problem, TooManyFailures) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rewards", description="Score completions.")
    verbs = parser.add_subparsers(required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=text)
        command.set_defaults(run=run)
        if run is not _list:
            command.add_argument("--reward", **({"default": "math"} if run is _selfcheck else {"required": True}))
            command.add_argument("--param", action="append", default=[], metavar="K=V", help="V is JSON or a string")
            command.add_argument("--input", type=Path, required=run is _score, metavar="JSONL")
        return command

    verb("list", _list, "rewards, their row columns and their parameters")
    verb("selfcheck", _selfcheck, "attack this machine's sandbox; with --input: check reference answers")
    score = verb("score", _score, "score rows that carry `completion` or `completions`")
    score.add_argument("--output", type=Path, required=True, metavar="JSONL")
    score.add_argument("--workers", type=_between(int, 1, 256), metavar="N", help="parallel processes or requests")
    limit, share = FailureLimit(), _between(float, 0, 1)
    for name, default in (("errors", limit.error), ("timeouts", limit.timeout)):
        score.add_argument(f"--max-{name}", type=share, default=default, metavar="SHARE", help=f"default {default}")
    serve = verb("serve", _serve, "score over HTTP: POST /score, and /get_reward for rows of --input by their prompt")
    text = "value that /get_reward returns for an outcome, e.g. truncated=-1"
    serve.add_argument("--value", action="append", default=[], metavar="OUTCOME=NUMBER", help=text)
    for name, field in ServerSettings.model_fields.items():
        if name != "values":
            text = f"{field.description or ''} (default {field.default})".strip()
            serve.add_argument(f"--{name.replace('_', '-')}", type=_json, default=field.default, help=text, metavar="X")
    return parser


def _between(kind: Callable[[str], float], low: int, high: int) -> Callable[[str], float]:
    """An argparse type: a number of type `kind` from low to high."""

    def number(text: str) -> float:
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {low} and {high}")
        return kind(text)

    return number


def _json(text: str) -> Any:
    """The value of a JSON text; other texts unchanged."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pairs(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """{name: value} of the `name=value` texts of an option. Raises RewardError."""
    for text in texts:
        if not text.partition("=")[1] or text.startswith("="):
            raise RewardError(f"{option} {text!r}: write it as name=value")
    return {text.partition("=")[0]: _json(text.partition("=")[2]) for text in texts}


def _reward(args: argparse.Namespace) -> Reward:
    return load(args.reward, **_pairs("--param", args.param))


def _list(args: argparse.Namespace) -> int:
    for name in REGISTRY:
        kind = reward_class(name)
        defaults = {name: getattr(field.default, "name", field.default) for name, field in kind.model_fields.items()}
        params = ", ".join(f"{name}={json.dumps(default)}" for name, default in defaults.items())
        print(f"{name}: {(kind.__doc__ or '').splitlines()[0]}")
        print(f"  columns: {', '.join(kind.needs) or 'none'}\n  parameters: {params}")
    return 0


def _score(args: argparse.Namespace) -> int:
    limit = FailureLimit(error=args.max_errors, timeout=args.max_timeouts)
    outcomes = score_file(_reward(args), args.input, args.output, args.workers, limit)
    print(json.dumps({"output": str(args.output), "outcomes": outcomes}))
    return 0


def _selfcheck(args: argparse.Namespace) -> int:
    lines, passed = _references(_reward(args), args.input) if args.input else _machine()
    print("\n".join(lines))
    return 0 if passed else 1


def _machine() -> tuple[list[str], bool]:
    """(report, passed) for the sandbox, the code reward and the math workers."""
    level, sandbox_attacks = sandbox.selfcheck()
    kinds = [kind for kind in _KINDS if kind != "cpp" or shutil.which("g++")]
    programs = tomllib.loads(Path(__file__).with_name("attacks.toml").read_text("utf-8"))
    attacks = list(sandbox_attacks)
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        for kind in kinds:
            for name, text in programs[kind].items():
                stopped = _value(kind, text.replace("CANARY", str(canary))) <= 0 and not canary.exists()
                attacks.append((f"{kind}: {name}", stopped))
    lines = [f"isolation level: {level}"]
    if not sandbox_attacks:
        lines.append("SUCCEEDED: the attacks ended the process that runs them")
    lines += [f"SUCCEEDED: {name}" for name, stopped in attacks if not stopped]
    failed = [f"FAILED: a correct completion ({kind})" for kind in kinds if _value(kind, programs["honest"][kind]) != 1]
    count = sum(stopped for _, stopped in attacks)
    lines += [*failed, f"{count} of {len(attacks)} attacks stopped"]
    return lines, bool(sandbox_attacks) and count == len(attacks) and not failed


def _value(kind: str, text: str) -> float:
    """The value of a program or boxed answer, graded by the reward of its kind."""
    reward, row, completion = _KINDS[kind]
    return load(reward).score(row, completion % text).value


def _references(reward: Reward, path: Path) -> tuple[list[str], bool]:
    """(report, passed) for grading every row's reference answer. Raises RewardError, OSError."""
    check_columns(reward, path)
    problems = {line.number: line.problem or reward.gold_problem(line.row) for line in read_lines(path)}
    lines = [f"{path}:{number}: {problem}" for number, problem in problems.items() if problem]
    correct, wrong = len(problems) - len(lines), len(lines)
    lines.append(f"{correct} of {len(problems)} reference answers grade as correct")
    return lines, correct > 0 and not wrong


def _serve(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns 1 if requests were still running after `grace` seconds."""
    from rewards.serving.app import App
    from rewards.serving.server import listen, run  # only this command needs uvicorn

    options = {name: vars(args)[name] for name in ServerSettings.model_fields if name != "values"}
    settings = checked(ServerSettings, {**options, "values": _pairs("--value", args.value)}, "serve")
    lines = list(read_lines(args.input)) if args.input else []
    for line in lines:
        if line.problem:
            raise RewardError(f"{args.input}:{line.number}: {line.problem}")
    reward = _reward(args)
    app = App(reward, [line.row for line in lines], settings)
    reward.check_ready()
    finished = run(app, listen(settings.host, settings.port))
    if not finished:  # exit at once: the interpreter would wait for running threads
        sys.stdout.flush()
        os._exit(1)
    return 0
