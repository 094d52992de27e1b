"""What runs inside the sandbox: standard library only, and nothing here ever holds an expected output.

The supervisor starts it as `python -I -S -B` with an empty environment; see the package above for the picture.
"""
