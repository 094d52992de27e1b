"""Extensions that run inside verl's processes: our policy losses, advantages and metrics, and a CPU platform.

verl imports this package in each of its processes if these environment variables are set:

    VERL_USE_EXTERNAL_MODULES=launchers.plugins.verl          losses, advantages, metrics
    VERL_PLATFORM=cpu VERL_ENGINE_DEVICE=cuda                 a CPU instead of GPUs

The import comes before verl's own heavy modules. Each patch is applied when its module is imported, which saves memory
in processes that never import it, and avoids circular imports. README.md explains every variable and key that a CPU run
needs.
"""

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
