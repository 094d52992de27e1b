"""Writes the keys of torchtune's recipes, so that the launcher can check `native` without importing torchtune.

    <torchtune python> -m launchers.plugins.torchtune.dump_keys > configs/native/torchtune.json

recipes: the keys that each recipe reads; types: types of keys for which all shipped configs agree; arguments: all
arguments of the components that we render. A test compares the file with the installed version.
"""

import inspect
import json
from collections import defaultdict

import yaml

from launchers.plugins.torchtune import check, stock
from torchtune.models import llama3, llama3_1, qwen2
from torchtune.modules.loss import CEWithChunkedOutputLoss
from torchtune.rlhf.loss import DPOLoss, RSOLoss

COMPONENTS = {
    "model": (llama3.lora_llama3, llama3_1.lora_llama3_1, qwen2.lora_qwen2),
    "loss": (CEWithChunkedOutputLoss, DPOLoss, RSOLoss),
}


def dumped() -> dict[str, object]:
    """The content of the file, sorted."""
    files = {name: stock.recipe_file(name) for name in stock.CLASSES}
    seen: dict[str, set[str]] = defaultdict(set)
    folder = next(iter(files.values())).parent / "configs"
    for path in sorted(folder.rglob("*.yaml")):
        for key, value in (yaml.safe_load(path.read_text()) or {}).items():
            if isinstance(value, bool | int | float | str):
                seen[key].add(type(value).__name__)
    read = {name: sorted(check.top_level_keys(path)) for name, path in files.items()}
    known = {key for keys in read.values() for key in keys}
    return {
        "recipes": read,
        "types": {key: min(kinds) for key, kinds in sorted(seen.items()) if len(kinds) == 1 and key in known},
        "arguments": {
            name: sorted({argument for kind in kinds for argument in inspect.signature(kind).parameters})
            for name, kinds in COMPONENTS.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(dumped(), indent=1))
