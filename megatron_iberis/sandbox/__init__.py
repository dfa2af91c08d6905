"""Runs code that a model has written, shut in, and tells whether it passes its tests.

* `run_tests` one program, `run_many` many; `sandbox_level` how well this machine shuts them in (level.py).
* Each runs in an interpreter of its own with an empty environment, and is killed with all that it has started.
* A pass is a token that lies ready behind the tests, never an exit code and nothing that was printed. Program and
  tests share an interpreter, so a program that is out for it can find the token: this keeps out accidents and the
  usual fakes (sys.exit(0), os._exit(0), objects that are equal to everything), not an adversary.
"""

from megatron_iberis.sandbox.level import sandbox_level
from megatron_iberis.sandbox.process import Level, Limits, Verdict
from megatron_iberis.sandbox.run import run_many, run_tests

__all__ = ["Level", "Limits", "Verdict", "run_many", "run_tests", "sandbox_level"]
