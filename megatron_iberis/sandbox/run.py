"""Programs and their tests, one or many, in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from megatron_iberis.sandbox.level import chosen_level
from megatron_iberis.sandbox.process import DEFAULT_LIMITS, Level, Limits, Verdict, run_at


def run_tests(program: str, tests: str, limits: Limits = DEFAULT_LIMITS, level: Level | None = None) -> Verdict:
    """Whether `tests`, run behind `program` in the same namespace, come to their end without an exception.

    level: None, the best that there is (`sandbox_level`). InputError if that is weak and `limits` don't allow it.
    The program may not import itself or start processes; its answers are compared by Python's own rules: one with
    an __eq__ of the program's does not pass.
    """
    return run_at(level or chosen_level(limits), program, tests, limits)


def run_many(
    jobs: Sequence[tuple[str, str]],
    limits: Limits = DEFAULT_LIMITS,
    processes: int = 0,
    done: Callable[[int, Verdict], None] = lambda number, verdict: None,
) -> list[Verdict]:
    """The verdict of each (program, tests), `processes` at a time (0: one a core).

    done: called with the number of a job and its verdict as they come, from one of several threads.
    """
    level = chosen_level(limits) if jobs else "weak"
    processes = min(processes or os.cpu_count() or 1, max(1, len(jobs)))

    def one(number: int) -> Verdict:
        verdict = run_at(level, *jobs[number], limits, processes)
        done(number, verdict)
        return verdict

    with ThreadPoolExecutor(processes, "sandbox") as pool:
        running = [pool.submit(one, number) for number in range(len(jobs))]
        try:
            return [future.result() for future in running]
        finally:
            pool.shutdown(cancel_futures=True)
