"""A completion stands for a program in whatever form a model writes one, and passes only by its tests."""

from __future__ import annotations

import pytest

from megatron_iberis.tasks import open_task
from megatron_iberis.tasks.code import program

from .fixtures import PROMPT

BODY = "    return pi * r ** 2\n"
FUNCTION = f"def area(r):\n{BODY}"
RIGHT = {
    "the body alone": BODY,
    "the body and more": f"{BODY}\n\nprint(area('x'))\n",
    "the body and another function": f"{BODY}\ndef other(:\n",
    "the function": FUNCTION,
    "the whole program": PROMPT + BODY,
    "a fenced block": f"Sure!\n```python\n{FUNCTION}```\nIt squares r.",
    "a fenced block without a name": f"```\n{FUNCTION}\n```",
    "a fenced block that is not closed": f"```python\n{FUNCTION}",
    "the first of two blocks": f"```python\n{FUNCTION}```\n```python\narea('x')\n```",
    "a helper of the question": "def area(r):\n    return 2 * half(pi * r * r)\n",
    "a fenced body": f"```python\n{BODY}```",
}
WRONG = {
    "nothing": "",
    "another value": "    return 3\n",
    "an exit": "    raise SystemExit\n",
    "text": "I would multiply.",
}


def passes(code: str, tests: str) -> bool:
    """As the sandbox would: the texts here are our own."""
    try:
        exec(f"{code}\n{tests}\ncheck(area)", {})
    except (Exception, SystemExit):
        return False
    return True


@pytest.mark.parametrize("form", [*RIGHT, *WRONG])
@pytest.mark.parametrize("name", ["humaneval", "jhumaneval"])
def test_a_program_is_made_of_any_form_of_answer(form: str, name: str, authors: str) -> None:
    row = open_task(name, root=authors)[0]
    assert passes(program(row, {**RIGHT, **WRONG}[form]), row.more["test"]) == (form in RIGHT)


def test_the_questions_own_solution_is_its_answer(authors: str) -> None:
    row = open_task("humaneval", root=authors)[0]
    assert row.messages[0]["content"] == PROMPT
    assert passes(row.messages[1]["content"], row.more["test"])
    assert passes(program(row, row.messages[1]["content"]), row.more["test"])


def test_programs_are_marked_in_the_sandbox(authors: str) -> None:
    pytest.importorskip("megatron_iberis.sandbox")
    task = open_task("humaneval", root=authors)
    row = task[0]
    mark = task.mark(row, f"```python\n{FUNCTION}```")
    assert mark.score == 1
    assert mark.found == program(row, FUNCTION)
    for said in ("an exit", "another value"):
        assert task.mark(row, WRONG[said]).score == 0
