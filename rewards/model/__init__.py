"""Reward models, over HTTP or in this process, and their chat templates."""
