"""The code that runs in the sandboxed processes; at start it imports only the standard library.

The supervisor starts it as `python -I -S -B` with an empty environment; the docstring of rewards/sandbox/__init__.py
shows the processes. Only the process of Python test code (judge.py) holds expected values; it runs no candidate's code.
"""
