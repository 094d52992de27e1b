"""Starts vLLM's API server with a forked engine, for CPUs: a spawned one imports vLLM again (11 s of CPU time).

A script, run by vLLM's interpreter with the server's arguments. A CPU has no device state that a fork would break.
"""

import multiprocessing
import runpy
import sys
from multiprocessing import resource_tracker

if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules are not vLLM's
    from vllm.utils import system_utils

    system_utils.get_mp_context = lambda: multiprocessing.get_context("fork")
    resource_tracker.ensure_running()  # one that the engine starts is killed with the children of the engine
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
