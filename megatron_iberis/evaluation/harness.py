"""EleutherAI's lm-evaluation-harness on a model of ours, through the engine of `inference/`.

* Each sequence begins with exactly one <|bos|>, also one that is a conversation, or that was cut to the context.
* Text never makes a special: a conversation comes from the harness as a string, so its specials are spelled there by
  marks that nobody can guess, drawn anew for each object.
* A continuation is the tokens behind what it has in common with its context: where a piece spans the join the piece
  counts, and no continuation is without a token.

Per item this equals `--model hf` on the export, where the export adds <|bos|> and no piece spans a join.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.asking import Asker
from megatron_iberis.evaluation.questions import Answer, Likelihood, Reply, shared_beginning
from megatron_iberis.storage.atomic import json_line, write_atomic, write_json
from megatron_iberis.tokenizer.chat import render_for_completion

if TYPE_CHECKING:
    from megatron_iberis.inference.load import LoadedModel

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows
except ImportError:
    raise InputError("lm-evaluation-harness is not installed: pip install 'megatron_iberis[eval]'.") from None

ANSWER_TOKENS = 256
"""Of an answer, where the task says nothing."""


class HarnessModel(TemplateLM):
    """A loaded model as the harness wants one. batch: requests at a time."""

    def __init__(self, model: LoadedModel, batch: int = 16) -> None:
        super().__init__()
        self._model, self._tokenizer = model, model.tokenizer
        self._ask = Asker(model.decoder, model.tokenizer, batch)
        self._context = model.recipe.model.sequence_length
        secret = secrets.token_hex(16)
        self._marks = {name: f"[{secret}{name}]" for name in self._tokenizer.specials}
        self._ids = {mark: self._tokenizer.specials[name] for name, mark in self._marks.items()}
        self._split = re.compile("(" + "|".join(map(re.escape, self._ids)) + ")")

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.bos_id

    @property
    def prefix_token_id(self) -> int:
        return self._tokenizer.bos_id

    @property
    def max_length(self) -> int:
        return self._context

    @property
    def tokenizer_name(self) -> str:
        return f"iberis-{self._tokenizer.fingerprint}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What the harness keeps beside results: our templates are no strings."""
        return "megatron_iberis/tokenizer/chat.py" if chat_template else None

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **settings: Any) -> list[int]:
        """The ids of a text, or of a conversation by `apply_chat_template`; <|bos|> first unless told otherwise."""
        ids: list[int] = []
        for part in self._split.split(string):
            ids += [self._ids[part]] if part in self._ids else self._tokenizer.encode(part)
        bos = self._tokenizer.bos_id
        return ids if add_special_tokens is False or ids[:1] == [bos] else [bos, *ids]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as a string that `tok_encode` makes the ids of `render_for_completion` of."""
        answer_goes_on = not add_generation_prompt and chat_history[-1]["role"] == "assistant"
        ids = render_for_completion(self._tokenizer, chat_history, answer_anew=not answer_goes_on)
        spelled = {i: self._marks[name] for name, i in self._tokenizer.specials.items()}
        parts, text = [], list[int]()
        for i in ids:
            if i in spelled:
                parts += [self._tokenizer.decode(text), spelled[i]]
                text = []
            else:
                text.append(i)
        return "".join([*parts, self._tokenizer.decode(text)])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As the harness does it, with spaces at the context's end moved, but for the two promises above."""
        bare = context.rstrip()
        if bare != context:
            context, continuation = bare, context[len(bare) :] + continuation
        without = self.tok_encode(context)
        whole = self.tok_encode(context + continuation)
        start = max(1, min(shared_beginning([tuple(without), tuple(whole)]), len(whole) - 1))
        return whole[:start], whole[start:]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Nats of each continuation, at most 0, and whether each of its tokens is the likeliest."""
        pairs = [self._encode_pair(*request.args) for request in requests]
        return self._loglikelihood_tokens([(("", ""), *pair) for pair in pairs])

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **settings: Any
    ) -> list[tuple[float, bool]]:
        asked = [self._likelihood(context, target) for _, context, target in requests]
        replies = iter(self._ask([[question] for question in asked if question]))
        found = (next(replies)[0] if question else Reply(greedy=True) for question in asked)
        return [(reply.total, reply.greedy) for reply in found]

    def _likelihood(self, context: Sequence[int], target: Sequence[int]) -> Likelihood | None:
        """What does not fit into the context is left out behind <|bos|>; None: there is nothing to be likely."""
        ids = (*context, *target)
        if len(ids) < 2:
            return None
        most = self._context + 1
        kept = ids if len(ids) <= most else (self._tokenizer.bos_id, *ids[len(ids) - most + 1 :])
        return Likelihood(kept, max(1, len(kept) - len(target)))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Nats of whole texts, each token once, in windows of the context."""
        items = []
        for request in requests:
            windows = get_rolling_token_windows(
                self._tokenizer.encode(request.args[0]), self._tokenizer.bos_id, self._context, 1
            )
            items.append([Likelihood((*seen, said[-1]), len(seen) + 1 - len(said)) for seen, said in windows])
        return [sum(reply.total for reply in replies) for replies in self._ask(items)]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, the likeliest token each time; InputError for a task that wants them drawn."""
        return [replies[0].text for replies in self._ask([[self._answer(*request.args)] for request in requests])]

    def _answer(self, context: str, settings: Mapping[str, Any]) -> Answer:
        if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
            raise InputError("the task wants answers that are drawn: only greedy ones are measured here.")
        until = settings.get("until") or []
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        tokens = min(int(settings.get("max_gen_toks", ANSWER_TOKENS)), self._context - 1)
        ids, room = self.tok_encode(context), self._context - tokens
        kept = ids if len(ids) <= room else [self._tokenizer.bos_id, *ids[len(ids) - room + 1 :]][:room]
        return Answer(tuple(kept), tokens, stop)


def run_harness(arguments: argparse.Namespace) -> None:
    """`iberis eval harness`: evaluates, prints the harness's table, and keeps results and items."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import make_table

    from megatron_iberis.evaluation.chat import check_chat_model
    from megatron_iberis.inference.load import load_model

    manager = TaskManager(include_path=arguments.include)
    known = set(manager.all_tasks)
    if unknown := [name for name in arguments.tasks if name not in known]:
        raise InputError(f"the harness has no task {unknown[0]!r}: lm_eval ls tasks shows them, --include adds some.")
    model = load_model(arguments.checkpoint, arguments.dtype, arguments.device)
    if arguments.chat:
        check_chat_model(model.recipe.run.stage, str(arguments.checkpoint))
    found = simple_evaluate(
        model=HarnessModel(model, arguments.batch),
        tasks=arguments.tasks,
        task_manager=manager,
        num_fewshot=arguments.fewshot,
        limit=arguments.limit,
        apply_chat_template=arguments.chat,
        confirm_run_unsafe_code=arguments.unsafe_code,
    )
    samples = found.pop("samples")
    print(make_table(found))
    if arguments.output:
        print(_keep(Path(arguments.output), found, samples))


def _keep(folder: Path, found: Mapping[str, Any], samples: Mapping[str, Sequence[Any]]) -> Path:
    """result.json and a file of items a task; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    plain: Callable[[Any], Any] = lambda value: json.loads(json.dumps(value, default=str))  # noqa: E731
    for name, rows in samples.items():
        write_atomic(folder / f"{name}.jsonl", b"".join(json_line(plain(row)) for row in rows))
    write_json(folder / "result.json", plain({key: found[key] for key in found if key != "config"}))
    return folder / "result.json"
