"""Programs that must pass tests: HumanEval, and JHumanEval with its descriptions in Japanese.

The question is the beginning of a program: imports, sometimes helpers, and a function with its description. A
completion may be the whole function, in a fenced block or not, or go on where the question ends. It is run in the
sandbox.
"""

from __future__ import annotations

import re

from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.published import Published
from megatron_iberis.tasks.records import Record
from megatron_iberis.tasks.task import Mark, Row

_FENCED = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\r?\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)


def _read(record: Record) -> Row:
    prompt, solution, entry = (record.text(key) for key in ("prompt", "canonical_solution", "entry_point"))
    prompt = prompt.replace(f'"""def {entry}(', f'"""\n\ndef {entry}(')  # JHumanEval/64 has lost a line's end
    if not _defines(prompt, entry):
        raise record.error(f"has a prompt without 'def {entry}'")
    return Row(
        ({"role": "user", "content": prompt}, {"role": "assistant", "content": prompt + solution}),
        record.where,
        references=(prompt + solution,),
        more={"question": prompt, "entry_point": entry, "test": record.text("test"), "solution": solution},
    )


def program(row: Row, completion: str) -> str:
    """The program to be tested that a completion stands for.

    What stands in the question before the function, its imports and helpers, comes first: answers leave it out.
    """
    prompt, entry = row.more["question"], row.more["entry_point"]
    fenced = _FENCED.search(completion)
    code = fenced[1] if fenced else completion
    if not _defines(code, entry):
        return prompt + _body(code)
    return f"{prompt[: _definition(prompt, entry)]}\n{code.strip()}\n"


def _body(code: str) -> str:
    """What goes on with a function: up to the first line that is not indented."""
    lines = code.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    end = next((i for i, line in enumerate(lines) if i > first and line.strip() and line[0] not in " \t"), len(lines))
    return "".join(lines[:end])


def _defines(code: str, name: str) -> bool:
    return re.search(rf"^[ \t]*def {re.escape(name)}\b", code, re.MULTILINE) is not None


def _definition(code: str, name: str) -> int:
    """Where the (last) definition of the function begins."""
    return [match.start() for match in re.finditer(rf"^def {re.escape(name)}\b", code, re.MULTILINE)][-1]


def mark_program(row: Row, completion: str) -> Mark:
    """1 if the program passes its tests in the sandbox; found: the program."""
    from megatron_iberis.sandbox import run_tests

    code = program(row, completion)
    tests = f"{row.more['test']}\ncheck({row.more['entry_point']})\n"
    return Mark(float(run_tests(code, tests).passed), code)


def _task(name: str, language: str, place: Place) -> Published:
    return Published(name, "ja" if language == "ja" else "en", "generation", 0.0, place, "test", _read, mark_program)


TASKS = {
    "humaneval": _task(
        "humaneval", "en", Place("humaneval", {"test": ("openai_humaneval/test-*.parquet", "HumanEval.jsonl")})
    ),
    "jhumaneval": _task(
        "jhumaneval",
        "ja",
        Place(
            "jhumaneval",
            {"test": ("data/test-*.parquet", "*/test-*.parquet", "jhuman-eval.jsonl", "*.jsonl", "data/*.jsonl")},
        ),
    ),
}
