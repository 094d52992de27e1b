"""What runs inside verl's own processes: our policy losses and advantages, and on a CPU the platform verl lacks.

verl imports it in each of its processes when the environment says so:

    VERL_USE_EXTERNAL_MODULES=launchers.plugins.verl          losses and advantages
    VERL_PLATFORM=cpu VERL_ENGINE_DEVICE=cuda                 and a CPU in place of GPUs

That is before verl's own heavy modules. A patch waits until its module is imported, which keeps processes that never
need it small, and avoids circular imports. README.md in this folder lists every variable and key that a run on a CPU
needs, and why.
"""

from __future__ import annotations

import os

from wrapt import register_post_import_hook

from launchers.plugins import trackers
from launchers.plugins.verl import measures, registry, stop_texts, stopping

register_post_import_hook(registry.register, "verl.trainer.ppo.core_algos")
register_post_import_hook(registry.hand_over_scores, "verl.trainer.ppo.ray_trainer")
register_post_import_hook(measures.install, "verl.trainer.ppo.ray_trainer")
register_post_import_hook(stop_texts.install, "verl.experimental.agent_loop.single_turn_agent_loop")
if "TRACKER_RUN" in os.environ:
    register_post_import_hook(trackers.resume_trackio, "trackio")
if stopping.FOLDER in os.environ:
    register_post_import_hook(stopping.install, "verl.trainer.ppo.ray_trainer")

if os.environ.get("VERL_PLATFORM") == "cpu":
    from launchers.plugins.verl import cpu_platform, cpu_vllm

    cpu_platform.install()
    cpu_vllm.install()
