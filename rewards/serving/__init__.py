"""Rewards in the shape that a trainer calls."""
