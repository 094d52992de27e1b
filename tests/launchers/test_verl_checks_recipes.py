"""Every verl recipe, and each of the losses, passes the checks that a training makes in verl's environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from launchers import envs
from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from tests.conftest import REPO
from tests.launchers.test_verl import ONLINE

# One process for all: importing verl takes longer than checking. Layers that differ in names alone are composed once.
CHECK = """
import json, re, sys
from pathlib import Path
from launchers.plugins.verl import check
composed = {}
for folder in map(Path, sys.argv[1:]):
    layers = "".join(path.read_text() for path in sorted(folder.glob("*.yaml"))).replace(str(folder), "")
    layers = re.sub(r"#.*|(project_name|experiment_name|train_files|val_files): .*", "", layers)
    config = composed[layers] = composed.get(layers) or check.compose(folder)
    config.reward.custom_reward_function.reward_kwargs.config = str(folder / "reward.json")
    found = check.explain(check.faults(config, data=False), json.loads((folder / "origins.json").read_text()))
    print("checked " + json.dumps([str(folder), found]))
"""
VARIANTS = {
    "as written": (),
    "dapo": ("algorithm.loss=clip_higher", "algorithm.clip_high=0.28", "algorithm.advantages=group",
             "algorithm.kl=none", "algorithm.kl_coef=0", "algorithm.truncated=mask", "algorithm.truncated_penalty=0"),
    "deepseekmath": ("algorithm.loss=sequence_mean", "algorithm.clip_high=0.2", "algorithm.advantages=group",
                     "algorithm.kl=loss", "algorithm.kl_coef=0.04"),
    "dr_grpo": ("algorithm.loss=dr_grpo", "algorithm.clip_high=0.2", "algorithm.advantages=none"),
    "gspo": ("algorithm.loss=gspo", "algorithm.clip_low=3e-4", "algorithm.clip_high=4e-4"),
    "ppo": ("method=ppo", "algorithm.advantages=gae", "algorithm.critic.learning_rate=9e-6",
            "algorithm.truncated=keep", "algorithm.truncated_penalty=0"),
    "lora": ("train.lora={rank: 16, alpha: 32}",),
}  # fmt: skip


@pytest.mark.parametrize("small", [False, pytest.param(True, marks=pytest.mark.full)])
def test_every_recipe_passes_verls_own_checks(tmp_path: Path, mini_model: Path, small: bool) -> None:
    """With the mini model in place of the Hub's: the checks read a model's config and tokenizer."""
    folders = []
    for name in ONLINE:
        for scale in compose.scales_of(name) if small else (None,):
            for variant, settings in list(VARIANTS.items())[: None if (name, scale) == (ONLINE[0], None) else 1]:
                given = [f"model={mini_model}", "revision=null", *settings]
                if scale is None:  # the mini model has fewer positions than a real one
                    given += ["rollout.max_prompt_length=64", "rollout.max_response_length=64"]
                resolved, faults = preflight.check(
                    compose.resolve(name, Overrides(scale, tuple(compose.parse_settings(given))))
                )
                assert faults == [], (name, variant)
                made = plan.build(resolved, tmp_path / name / f"{scale}-{variant}")
                for file, text in made.backend.render(made.main, made.run).items():
                    path = made.run / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
                folders.append(made.run / made.main.output)
    done = subprocess.run(
        [str(envs.ensure("verl", "cpu")), "-c", CHECK, *map(str, folders)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [
        json.loads(line.removeprefix("checked ")) for line in done.stdout.splitlines() if line.startswith("checked ")
    ]
    assert found == [[str(folder), []] for folder in folders]
