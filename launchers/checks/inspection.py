"""Writes inspect.json, the settings with which a trainer's plugin inspects training rows (checks/tokens.py)."""

import json

from data_prep.sources import tasks
from launchers import backends, harnesses
from launchers.backends.base import Job
from launchers.checks.tokens import SETTINGS
from launchers.recipe.online import is_online
from rewards.thinking import thinking


def files(job: Job) -> dict[str, str]:
    """inspect.json: model, length limit, thinking format, and the system prompts used for benchmarks."""
    recipe = job.resolved.recipe
    named = [recipe.system_prompt or tasks.read(name).system for name in harnesses.ours(recipe.eval)]
    tags = thinking(recipe.thinking) if recipe.thinking else None
    settings = {
        "trainer": recipe.trainer, "template_key": backends.load(recipe.trainer).template_key,
        "model": recipe.model, "online": is_online(recipe),
        "max_length": recipe.train.max_length, "limit": recipe.limits.thoughts,
        "thinking": tags and {"name": tags.name, "open": tags.open, "close": tags.close,
                               "prefilled": tags.prefilled, "tags": tags.tags},
        "systems": sorted({(tasks.PROMPTS / f"{name}.txt").read_text().strip() if name else "" for name in named}),
    }  # fmt: skip
    return {f"{job.output}/{SETTINGS}": json.dumps(settings, indent=1, ensure_ascii=False) + "\n"}
