"""A sandbox for model-written programs: Python solutions, C++ builds and compiled programs.

with Sandbox() as box: box.python("print(input())", [Case(b"1\\n")])
"""

from __future__ import annotations

from rewards.sandbox.box import Sandbox, shared
from rewards.sandbox.types import BUILD_LIMITS, Built, Case, Limits, Program, Ran

__all__ = ["BUILD_LIMITS", "Built", "Case", "Limits", "Program", "Ran", "Sandbox", "shared"]
