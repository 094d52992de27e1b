"""What runs inside verl's own processes: our policy losses and advantages, and on a CPU the platform verl lacks.

verl imports it in each of its processes when the environment says so:

    VERL_USE_EXTERNAL_MODULES=launchers.plugins.verl          losses and advantages
    VERL_PLATFORM=cpu VERL_ENGINE_DEVICE=cuda                 and a CPU in place of GPUs

README.md in this folder lists every variable and key that a run on a CPU needs, and why.
"""

from __future__ import annotations

import os

from launchers.plugins import trackers
from launchers.plugins.verl import measures, planned, registry, stop_texts, stopping
from launchers.plugins.verl.hooks import after_import

after_import("verl.trainer.ppo.core_algos", registry.register)
after_import("verl.trainer.ppo.ray_trainer", registry.hand_over_scores)
after_import("verl.trainer.ppo.ray_trainer", measures.install)
after_import("verl.experimental.agent_loop.single_turn_agent_loop", stop_texts.install)
if "TRACKER_RUN" in os.environ:
    after_import("trackio", trackers.resume_trackio)
if planned.FOLDER in os.environ:
    after_import("verl.trainer.ppo.ray_trainer", planned.write_planned)
    after_import("verl.trainer.ppo.ray_trainer", stopping.install)

if os.environ.get("VERL_PLATFORM") == "cpu":
    from launchers.plugins.verl import cpu_platform, cpu_vllm

    cpu_platform.install()
    cpu_vllm.install()
