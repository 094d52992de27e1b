"""Renders skypilot.yaml, the whole run as one SkyPilot task for clouds (`render --target skypilot`)."""

import hashlib
import re
import shlex

from launchers.errors import UserError
from launchers.plan.plan import Plan
from launchers.render import template
from launchers.targets.jobs import environments
from launchers.targets.slurm import job_name

FILE = "skypilot.yaml"


def skypilot_task(plan: Plan) -> str:
    """The text of skypilot.yaml. Raises UserError for multi-node runs on Ray."""
    resolved, commands = plan.resolved, plan.commands
    if any(command.across[:1] == ("ray",) for command in commands):
        raise UserError(resolved.fault("hardware", "Ray on several nodes is supported only with Slurm: use one node"))
    words = [resolved.name, *(["--scale", resolved.scale] if resolved.scale else [])]
    for key, value, _ in resolved.overrides.settings:
        words += ["--set", f"{key}={value}"]
    keys = {
        step.params["api_key_env"]
        for spec in plan.specs.values()
        for step in spec.steps
        if "api_key_env" in step.params
    }
    # bucket names must be globally unique and have at most 63 characters
    recipe = re.sub(r"[^a-z0-9]+", "-", job_name(plan).lower())[:40]
    bucket = f"posttrain-{recipe}-{hashlib.sha256(plan.run.name.encode()).hexdigest()[:10]}"
    return template("skypilot.yaml.j2").render(
        name=resolved.name, scale=resolved.scale, job_name=job_name(plan), file=plan.run / FILE, hardware=plan.hardware,
        bucket=bucket, cache="~/.cache/posttrain" if plan.hardware.nodes == 1 else "/posttrain/cache",
        envs=environments(plan), words=[shlex.quote(word) for word in words],
        secrets=sorted({"HF_TOKEN", *(key for key in keys if key and key.isidentifier())}),
    )  # fmt: skip
