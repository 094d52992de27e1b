"""Interfaces of the rewards for trainers: an HTTP server and verl's reward function."""
