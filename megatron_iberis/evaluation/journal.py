"""The folder of an evaluation: NAME.jsonl an item a line, which is also its journal, settings.json, result.json.

* Lines are appended as items are marked, and synced. Whoever goes on with the same settings does no item twice; a
  last line that was cut is left out.
* A line has the item's number, its prompt (what all its questions begin with) and how each goes on, the replies, what
  was read out of them, the right answer, the score, and why the answer was over.
* settings.json says what decides the replies; to go on with something else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Marked
from megatron_iberis.evaluation.questions import Question, Reply, shared_beginning
from megatron_iberis.storage.atomic import json_line, sync_stream, write_atomic, write_json
from megatron_iberis.storage.locks import claim

SETTINGS, RESULT = "settings.json", "result.json"
Line = dict[str, Any]


class EvaluationFolder:
    """Opens or makes the folder. InputError when another evaluation writes to it, or it was begun with others."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = claim(path)
        except BlockingIOError:
            raise InputError(
                f"another evaluation is writing to {path}: wait for its end, or name another folder."
            ) from None
        try:
            self._check(json.loads(json.dumps(dict(settings))))
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Lets go of it."""
        self._lock.close()

    def read(self, name: str) -> dict[int, Line]:
        """The whole lines of a benchmark, by item; what stands behind them is cut off."""
        path = self.path / f"{name}.jsonl"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return {}
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_atomic(path, whole)
        lines: dict[int, Line] = {}
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = json.loads(text)
                lines[int(line["item"])] = line
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path}:{number} is damaged: remove {path}, or name another folder.") from None
        return lines

    def append(self, name: str, lines: Iterable[Line]) -> None:
        """Adds lines, on the disk when it returns."""
        with (self.path / f"{name}.jsonl").open("ab") as stream:
            stream.writelines(json_line(line) for line in lines)
            sync_stream(stream)

    def replace(self, name: str, lines: Mapping[int, Line]) -> None:
        """Writes all lines anew, in the order of the items."""
        write_atomic(self.path / f"{name}.jsonl", b"".join(json_line(lines[item]) for item in sorted(lines)))

    def write_result(self, result: Mapping[str, Any]) -> Path:
        """Writes result.json; returns its path."""
        write_json(self.path / RESULT, result)
        return self.path / RESULT

    def _check(self, settings: Mapping[str, Any]) -> None:
        path = self.path / SETTINGS
        try:
            before = json.loads(path.read_bytes())
        except FileNotFoundError:
            write_json(path, settings)
            return
        except ValueError:
            raise InputError(f"{path} is damaged: name another folder (--output).") from None
        for name in {*before, *settings}:
            if before.get(name) != settings.get(name):
                raise InputError(
                    f"{self.path} was begun with another {name} ({before.get(name)}, not {settings.get(name)}): give "
                    "the same again, or another folder (--output)."
                )


def line_of(item: int, questions: Sequence[Question], replies: Sequence[Reply], marked: Marked) -> Line:
    """An item's line."""
    count = shared_beginning([question.ids for question in questions])
    line: Line = {
        "item": item,
        "prompt": list(questions[0].ids[:count]),
        "continuations": [list(question.ids[count:]) for question in questions],
        "output": [reply.as_json() for reply in replies],
    }
    return line | marks_of(replies, marked)


def marks_of(replies: Sequence[Reply], marked: Marked) -> Line:
    """What marking adds to a line."""
    line: Line = {"found": marked.found, "gold": marked.gold, "score": marked.score}
    if marked.bytes:
        line |= {"nats": round(marked.nats, 6), "bytes": marked.bytes}
    if marked.others:
        line["others"] = dict(marked.others)
    finish = next((reply.finish for reply in replies if reply.finish), None)
    return line | ({"finish": finish} if finish else {})


def prompts_of(line: Line) -> list[tuple[int, ...]]:
    """The ids of an item's questions."""
    return [(*line["prompt"], *rest) for rest in line["continuations"]]


def length_of(line: Line) -> int:
    """Tokens of an item's longest question, with its answer."""
    answers = [len(output.get("ids", ())) for output in line["output"]]
    longest = max(len(rest) + answer for rest, answer in zip(line["continuations"], answers, strict=True))
    return len(line["prompt"]) + longest


def replies_of(line: Line) -> list[Reply]:
    """An item's replies."""
    return [Reply.from_json(fields) for fields in line["output"]]


def marked_of(line: Line) -> Marked:
    """An item's marks."""
    text = line.get("nats", 0.0), line.get("bytes", 0)
    return Marked(line["score"], line["found"], line["gold"], *text, line.get("others", {}))
