"""Validates a config before anything is loaded: like `tune validate`, with additional checks.

`tune validate` only binds the arguments of top-level components to their signatures. It accepts misspelt keys of the
recipe itself (`batch_sizes`) and does not check nested components.
"""

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from launchers.errors import nearest

OURS = "posttrain"  # our own section
# Read through torchtune's CheckpointClient and its config parser.
ALSO = frozenset({"checkpointer", "enable_async_checkpointing", "resume_from_checkpoint", "output_dir"})
# In every shipped config, though not every recipe reads them.
HARMLESS = frozenset({"packed", "log_peak_memory_stats"})


@cache
def top_level_keys(path: Path) -> frozenset[str]:
    """Keys that a recipe file reads of its config: `cfg.x`, `cfg.get("x")` and `cfg["x"]`."""
    keys = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="cfg"), attr=name) if name != "get":
                keys.add(name)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="cfg"), attr="get"), args=[ast.Constant(value=str(name)), *_]
            ):
                keys.add(name)
            case ast.Subscript(value=ast.Name(id="cfg"), slice=ast.Constant(value=str(name))):
                keys.add(name)
    keys.add("profiler")  # read as PROFILER_KEY
    return frozenset(keys) | ALSO | HARMLESS


def faults(config: Any) -> list[tuple[str, str]]:
    """(dotted key, message) of every fault."""
    from launchers.plugins.torchtune import stock

    name = config[OURS]["recipe"]
    known = top_level_keys(stock.recipe_file(name))
    problems = []
    for key in config:
        if key != OURS and key not in known:
            problems.append((str(key), f"{name} does not read this key{_hint(key, known)}"))
    return [*problems, *_component_faults(config, ""), *_device_faults(config)]


def _component_faults(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Faults that torchtune.config.validate would report, for all components including nested ones."""
    from omegaconf import DictConfig

    from torchtune.config._errors import InstantiationError
    from torchtune.config._utils import _get_component_from_path

    for key, value in node.items():
        if not isinstance(value, DictConfig) or prefix + str(key) == OURS:
            continue
        place = f"{prefix}{key}"
        if "_component_" in value:
            try:
                component = _get_component_from_path(value["_component_"])
            except (InstantiationError, ImportError, AttributeError, ValueError) as problem:
                yield f"{place}._component_", " ".join(str(problem).split())
                continue
            yield from _argument_faults(place, component, value)
        yield from _component_faults(value, f"{place}.")


def _argument_faults(place: str, component: Any, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    signature = inspect.signature(component)
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    for key in given:
        if key != "_component_" and key not in signature.parameters and not free:
            hint = _hint(key, signature.parameters)
            yield f"{place}.{key}", f"{component.__name__} has no such argument{hint}"


def _hint(key: str, known: Iterable[str]) -> str:
    near = nearest(key, known)
    return f"; did you mean {near!r}?" if near else ""


def _device_faults(config: Any) -> Iterator[tuple[str, str]]:
    """Without a GPU, torchtune would silently train `device: cuda` on the CPU."""
    import torch

    if str(config.device).startswith("cuda") and not torch.cuda.is_available():
        yield "device", "cuda, but torch finds no GPU on this machine: torchtune would silently train on the CPU"


def explain(problems: list[tuple[str, str]], origins: Mapping[str, list[str]]) -> list[str]:
    """One line per fault: place in the recipe, our key, torchtune's key, message."""
    lines = []
    for native_key, message in problems:
        ours, where = origins.get(native_key) or origins.get(native_key.split(".")[0]) or ["", ""]
        place = f"{where}: {ours}: " if ours else ""
        lines.append(f"{place}torchtune's {native_key}: {message}")
    return lines
