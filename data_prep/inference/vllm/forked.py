"""Starts vLLM's API server with a forked engine, on CPUs: a spawned one would import vLLM again (11 s of CPU time).

A script, run by vLLM's interpreter with the server's arguments. On a CPU there is no device state that a fork breaks.
"""

import multiprocessing
import runpy
import sys
from multiprocessing import resource_tracker

if __name__ == "__main__":
    del sys.path[0]  # this folder; its modules must not shadow vLLM's
    from vllm.utils import system_utils

    system_utils.get_mp_context = lambda: multiprocessing.get_context("fork")
    resource_tracker.ensure_running()  # one started by the engine would be killed with the engine's children
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
