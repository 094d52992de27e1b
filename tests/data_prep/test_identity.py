"""A step's key: its imports, compared as syntax trees; its inputs' content; and replies that are kept across keys."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import making
import pytest
import steps_for_tests  # noqa: F401 - registers its steps

from data_prep.core import cache, pipeline
from data_prep.core.code_identity import KnownCode, closure
from data_prep.core.registry import STEPS
from tests.fakes.openai_server import OpenAIServer

REPOSITORY = Path(__file__).parents[2]
MODULES = sorted([*REPOSITORY.glob("data_prep/**/*.py"), *REPOSITORY.glob("rewards/**/*.py")])
KEYS = """
import json
from pathlib import Path
from data_prep.core.code_identity import code_hash
from data_prep.core.registry import STEPS
print(json.dumps({kind: code_hash((place.split(":")[0],)) for kind, place in STEPS.items()}))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An editable copy of the packages."""
    for name in ("data_prep", "rewards"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def imported_modules(module: str) -> set[str]:
    return {name for name, _ in closure((module,), KnownCode(None))}


def keys(folder: Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", KEYS], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_comments_docstrings_and_formatting_in_all_modules_change_no_key(copy: Path) -> None:
    before = keys(copy)
    for path in (copy / one.relative_to(REPOSITORY) for one in MODULES):
        source = path.read_text()
        tree = ast.parse(source)
        if ast.get_docstring(tree) is not None:
            tree.body = tree.body[1:]
        path.write_text(f'"""Another docstring."""\n# a comment\n{ast.unparse(tree)}\n')
        assert path.read_text() != source
    assert keys(copy) == before


def test_code_that_runs_changes_the_keys_of_the_steps_that_import_it(copy: Path) -> None:
    before = keys(copy)
    # Match decides which rows of a task are loaded.
    edit(
        copy / "data_prep/sources/tasks.py",
        "        if self.contains is not None:\n            return",
        "        return True\n        if self.contains is not None:\n            return",
    )
    changed = {kind for kind, key in keys(copy).items() if key != before[kind]}
    assert {"load", "decontaminate"} <= changed
    assert "dedup" not in changed


@pytest.mark.parametrize(
    ("module", "path"),
    [
        ("rewards.math.reward", "rewards/math/notation.toml"),
        ("rewards.text", "rewards/text/stop_words.toml"),
        ("own_rows", "own_helper.py"),  # a user's function, and what it imports from its folder
        ("own_package.rows", "own_helper.py"),
    ],
)
def test_data_files_of_a_module_change_its_key(module: str, path: str, copy: Path) -> None:
    (copy / "own_package").mkdir()
    for name in ("own_rows.py", "own_package/__init__.py", "own_package/rows.py"):
        (copy / name).write_text("import json\nimport own_helper\nimport pytest\n")
    (copy / "own_helper.py").write_text("LEAST = 3\n")
    words = [sys.executable, "-c", f"from data_prep.core.code_identity import *; print(code_hash(({module!r},)))"]
    before = subprocess.run(words, cwd=copy, capture_output=True, check=True).stdout
    with (copy / path).open("a") as file:
        file.write("\nmore = 1\n")
    assert subprocess.run(words, cwd=copy, capture_output=True, check=True).stdout != before


def test_imports_are_followed_into_functions_and_up_to_packages() -> None:
    modules = imported_modules("data_prep.steps.label")
    assert {
        "data_prep.steps.label",
        "data_prep.inference.api.client",
        "data_prep.inference.api.journal",
        "data_prep",
    } <= modules
    assert all(place.partition(":")[0] in imported_modules(place.partition(":")[0]) for place in STEPS.values())


def test_parsing_results_are_cached(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KEYS.replace("[0],))", f"[0],), Path({str(tmp_path)!r}))")]
    first = subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=True).stdout
    entries = json.loads((tmp_path / "code.json").read_bytes())
    assert len(entries) > 20
    for text in ("{", json.dumps({name: ["0" * 64, []] for name in entries})):  # torn; and used where it is whole
        (tmp_path / "code.json").write_text(text)
        again = subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=True).stdout
        assert (again == first) is (text == "{")


def spec(folder: Path, *steps: tuple[str, dict]) -> pipeline.Spec:
    return making.spec(folder, *steps)


def test_a_step_with_identical_input_rows_is_reused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(40))
    made = pipeline.run(spec(tmp_path, ("load", {"path": "in.jsonl"}), ("slow", {"log": str(log)})))
    again = spec(tmp_path, ("load", {"path": "in.jsonl", "limit": 40}), ("slow", {"log": str(log)}))
    second = pipeline.run(again)
    assert second[0].key != made[0].key
    assert second[1].sha256 == made[1].sha256
    assert log.read_text().split() == [str(n) for n in range(4)], "each shard was made once"
    assert [row["id"] for row in pipeline.read_rows(pipeline.find(again))] == [
        row["id"] for row in pipeline.read_rows(pipeline.find(again, "slow"))
    ]
    assert all(one.state == "done" for one in pipeline.plan(again))


def generating(folder: Path, server: OpenAIServer, **load: object) -> pipeline.Spec:
    params = {"model": "m", "base_url": server.url, "n": 2, "max_tokens": 50}
    return spec(folder, ("load", {"path": "in.jsonl", **load}), ("generate", params))


def test_no_request_is_repeated_after_a_key_change(tmp_path: Path) -> None:
    prompts = [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"What is {n} + {n}?"}]} for n in range(20)]
    making.write_jsonl(tmp_path / "in.jsonl", prompts)
    with OpenAIServer() as server:
        pipeline.run(generating(tmp_path, server))
        asked = len(server.requests)
        assert asked == 20
        fewer = pipeline.run(generating(tmp_path, server, limit=10))[-1]
        assert len(server.requests) == asked
        assert fewer.rows_out == 20
        making.write_jsonl(tmp_path / "in.jsonl", [*prompts, {**prompts[0], "id": "p20"}])
        pipeline.run(generating(tmp_path, server))
        assert len(server.requests) == asked + 1, "only the new row's"


def test_pruning_keeps_what_is_used_and_all_replies(tmp_path: Path) -> None:
    making.write_jsonl(tmp_path / "in.jsonl", making.rows(10))
    old = spec(tmp_path, ("load", {"path": "in.jsonl"}), ("slow", {}))
    pipeline.run(old)
    assert cache.prune(old.cache, 1) == []
    assert len(cache.prune(old.cache, 0, dry_run=True)) == 2
    assert any("slow" in line for line in cache.size_table(old.cache))
    assert len(cache.prune(old.cache, 0)) == 2
    assert [one.state for one in pipeline.plan(old)] == ["todo", "todo"]
    assert not list((old.cache / "contents").glob("*"))
