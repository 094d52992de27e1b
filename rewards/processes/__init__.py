"""Processes that rewards use: a pool that outlives what runs in it, and batches spread over it."""
