"""Ways to ask a reward model: over HTTP, in process; and its chat template."""
