"""Where a step's rows come from: its own manifest and those of all steps before it, from the cache that holds them.

for step in lineage(directory): print(step.kind, step.params.get("model"))
"""

from __future__ import annotations

from pathlib import Path

from data_prep.core.manifest import Manifest, read_manifest
from data_prep.errors import DataError


def lineage(directory: Path) -> list[Manifest]:
    """Manifests of a finished step and of its ancestors, the nearest first. Raises DataError when one is gone."""
    manifests: dict[str, Manifest] = {}
    todo = [directory]
    while todo:
        folder = todo.pop(0)
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(f"{folder}: this step has not been run to its end, or its manifest has been removed")
        manifests[manifest.key] = manifest
        todo += (_folder(directory.parent, key) for key in manifest.inputs if key not in manifests)
    return list(manifests.values())


def _folder(cache: Path, key: str) -> Path:
    """The directory of the step with this key."""
    for place in cache.glob(f"*-{key[:12]}"):
        if (manifest := read_manifest(place)) and manifest.key == key:
            return place
    raise DataError(f"{cache}: no step of key {key[:12]}: an input of a step that stands has been removed")
