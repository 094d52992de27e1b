"""Reward models over HTTP."""
