"""`iberis eval base|chat|harness`. None of them imports torch before it runs."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_iberis.command import Parser, path_argument
from megatron_iberis.errors import InputError
from megatron_iberis.inference.arguments import add_model_arguments

if TYPE_CHECKING:
    from megatron_iberis.evaluation.benchmark import Measure
    from megatron_iberis.evaluation.names import Openers
    from megatron_iberis.evaluation.opened import OpenedCheckpoint


def add_eval(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds `iberis eval` to the command line."""
    group = commands.add_parser("eval", help="measure a model: CORE, Japanese tasks, bits per byte, chat tasks")
    kinds = group.add_subparsers(required=True, metavar="WHAT")
    base = kinds.add_parser("base", help="as a text goes on: CORE, the JA mean's tasks, bits per byte of texts")
    _add_common(base, "core, ja, or names of their tasks (default: core ja)")
    base.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="LANGUAGE=PATH",
        help="bits per byte of a token file or text files, for example ja=held_out.jsonl; may be given again",
    )
    base.set_defaults(run=_base)
    chat = kinds.add_parser("chat", help="in conversation: ChatCORE's tasks and the Japanese ones")
    _add_common(
        chat,
        "names of tasks, chatcore, or files of questions: mine.jsonl, ja=mine.jsonl (default: all tasks there are)",
    )
    chat.add_argument(
        "--allow-weak-sandbox", action="store_true", help="run the model's programs also where they can't be shut in"
    )
    chat.set_defaults(run=_chat)
    _add_harness(kinds)


def _add_common(command: argparse.ArgumentParser, tasks: str) -> None:
    add_model_arguments(command)
    command.add_argument("--tasks", nargs="+", default=[], metavar="NAME", help=tasks)
    command.add_argument("--root", type=path_argument, help="folder of the sets and the CORE bundle")
    command.add_argument("--processes", type=int, default=1, help="each with the model (default: 1)")
    command.add_argument("--batch", type=int, default=16, help="requests at a time in each (default: 16)")
    command.add_argument("--output", type=path_argument, help="folder of results (default: in the run's folder)")
    command.add_argument("--limit", type=int, default=0, help="items of each task at most (default: all)")
    command.add_argument("--score-only", action="store_true", help="mark again what was answered, without the model")


def _base(arguments: argparse.Namespace) -> None:
    from megatron_iberis.evaluation.names import BASE, base_benchmarks
    from megatron_iberis.evaluation.opened import OpenedCheckpoint
    from megatron_iberis.evaluation.texts import TextRows

    checkpoint = OpenedCheckpoint(arguments.checkpoint)
    tokenizer, context = checkpoint.tokenizer, checkpoint.recipe.model.sequence_length
    names = arguments.tasks or ([] if arguments.text else BASE)
    openers = dict(base_benchmarks(names, arguments.root or "", tokenizer, arguments.limit))
    for given in arguments.text:
        language, equals, path = given.partition("=")
        if not (language and equals and path):
            raise InputError(f"--text {given!r} names no language and path: write it as ja=held_out.jsonl.")
        openers[f"text-{language}"] = partial(TextRows, language, path, tokenizer, context, arguments.limit)
    _evaluate("base", arguments, checkpoint, openers)


def _chat(arguments: argparse.Namespace) -> None:
    from megatron_iberis.evaluation.chat import check_chat_model
    from megatron_iberis.evaluation.names import chat_benchmarks
    from megatron_iberis.evaluation.opened import OpenedCheckpoint

    checkpoint = OpenedCheckpoint(arguments.checkpoint)
    check_chat_model(checkpoint.recipe.run.stage, str(arguments.checkpoint))
    tokenizer, weak = checkpoint.tokenizer, arguments.allow_weak_sandbox
    openers = chat_benchmarks(arguments.tasks, arguments.root or "", tokenizer, arguments.limit, weak)
    _evaluate("chat", arguments, checkpoint, openers)


def _evaluate(kind: str, arguments: argparse.Namespace, checkpoint: OpenedCheckpoint, openers: Openers) -> None:
    """Opens the benchmarks, asks or marks, and tells of it."""
    from megatron_iberis.evaluation import report
    from megatron_iberis.evaluation.journal import EvaluationFolder
    from megatron_iberis.evaluation.running import Model, mark_again, run_benchmarks

    for name in ("batch", "processes"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}: give 1 or more.")
    benchmarks = [open_one() for open_one in openers.values()]
    folder = EvaluationFolder(
        Path(arguments.output) if arguments.output else checkpoint.default_output(kind),
        settings := checkpoint.settings(kind, arguments.dtype, arguments.limit),
    )
    try:
        print(f"{checkpoint.folder}, step {checkpoint.step}\n\n{report.HEADER}")

        def finished(measure: Measure) -> None:
            print(report.row(measure), flush=True)

        context = checkpoint.recipe.model.sequence_length
        if arguments.score_only:
            measures = mark_again(benchmarks, folder, context, finished)
        else:
            how_to_ask = (arguments.dtype, arguments.device, arguments.batch, arguments.processes)
            model = Model(checkpoint.folder, context, *how_to_ask)
            measures = run_benchmarks(benchmarks, folder, model, _show_progress, finished)
        how: dict[str, Any] = {"batch": arguments.batch, "processes": arguments.processes}
        path = folder.write_result(report.result(kind, settings, how, measures))
    finally:
        folder.close()
    print(
        "\n".join(
            ["", report.FOOT, *report.notes(measures), *report.summary_lines(report.summaries(measures)), f"\n{path}"]
        )
    )


def _show_progress(name: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{name} {done:,} of {of:,}" if done < of else "\r\033[K", end="", file=sys.stderr, flush=True)


def _add_harness(kinds: argparse._SubParsersAction[Parser]) -> None:
    command = kinds.add_parser("harness", help="with EleutherAI's lm-evaluation-harness (pip extra: eval)")
    add_model_arguments(command)
    command.add_argument("--tasks", nargs="+", required=True, metavar="NAME", help="as the harness names them")
    command.add_argument("--include", type=path_argument, help="folder of more of its tasks (.yaml)")
    command.add_argument("--fewshot", type=int, help="examples before each item (default: the task's)")
    command.add_argument("--batch", type=int, default=16, help="requests at a time (default: 16)")
    command.add_argument("--limit", type=int, help="items of each task at most (default: all)")
    command.add_argument("--chat", action="store_true", help="each prompt as a conversation")
    command.add_argument("--output", type=path_argument, help="folder for result.json and the items")
    command.add_argument("--unsafe-code", action="store_true", help="allow tasks that run what the model writes")
    command.set_defaults(run=_harness)


def _harness(arguments: argparse.Namespace) -> None:
    from megatron_iberis.evaluation.harness import run_harness

    run_harness(arguments)
