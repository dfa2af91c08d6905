"""A model's replies are what the reference works out, whatever is asked beside them, in any batch."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.evaluation.asking import LONGEST, Asker
from megatron_iberis.evaluation.questions import Answer, Letters, Likelihood, Question, Reply
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.generation import stop_ids
from megatron_iberis.inference.tools import ToolUse
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer
from tests.support.requests import sequence


def logprobs_of(reference: ReferenceIberis, ids: tuple[int, ...], tokenizer: Tokenizer) -> torch.Tensor:
    with torch.no_grad():
        return reference(torch.tensor([ids]))[0].log_softmax(-1)


def items() -> list[list[Question]]:
    """Of lengths 3 to 200, with a common beginning and without, one option the beginning of another."""
    shots = tuple(sequence(50))
    return [
        [Likelihood((1, 2, 3), 1)],
        [Likelihood((*shots, 9, *tail), 51) for tail in ((4,), (4, 5), (6, 7, 8), (4,))],
        [Likelihood((*shots, 8, 4), 51), Letters((*shots, 8), (5, 3))],
        [Likelihood(tuple(sequence(200, 5)), 190), Likelihood(tuple(sequence(90, 6)), 1)],
    ]


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_likelihoods_are_the_references_at_any_batch(
    batch: int, decoder: Decoder, reference: ReferenceIberis, tokenizer: Tokenizer
) -> None:
    for questions, replies in zip(items(), Asker(decoder, tokenizer, batch)(items()), strict=True):
        for question, reply in zip(questions, replies, strict=True):
            rows = logprobs_of(reference, question.ids, tokenizer)
            if isinstance(question, Letters):
                assert reply.logprobs == pytest.approx([rows[-1, i].item() for i in question.letters], abs=1e-4)
                continue
            assert isinstance(question, Likelihood)
            targets = torch.tensor(question.ids[question.start :])
            wanted = rows[question.start - 1 : -1]
            assert reply.logprobs == pytest.approx(wanted.gather(1, targets[:, None])[:, 0].tolist(), abs=1e-4)
            assert reply.greedy == bool((wanted.argmax(-1) == targets).all())


def test_equal_questions_have_equal_replies_to_the_last_bit(decoder: Decoder, tokenizer: Tokenizer) -> None:
    replies = Asker(decoder, tokenizer, 3)(items())
    assert replies[1][0] == replies[1][3]


def test_what_is_likeliest_is_greedy(decoder: Decoder, reference: ReferenceIberis, tokenizer: Tokenizer) -> None:
    prompt = tuple(sequence(20))
    rows = logprobs_of(reference, prompt, tokenizer)
    likeliest = int(rows[-1].argmax())
    other = (likeliest + 1) % tokenizer.vocab_size
    yes, no = Asker(decoder, tokenizer)([[Likelihood((*prompt, i), 20) for i in (likeliest, other)]])[0]
    assert (yes.greedy, no.greedy) == (True, False)


@pytest.mark.parametrize("batch", [1, 5])
def test_answers_are_the_references_at_any_batch(
    batch: int, decoder: Decoder, reference: ReferenceIberis, tokenizer: Tokenizer
) -> None:
    prompts = [tuple(sequence(length, length)) for length in (3, 40, 9, 25)]
    replies = Asker(decoder, tokenizer, batch)([[Answer(ids, 12)] for ids in prompts])
    ends = stop_ids(tokenizer)
    for prompt, (reply,) in zip(prompts, replies, strict=True):
        rows = logprobs_of(reference, (*prompt, *reply.ids), tokenizer)
        wanted = rows[len(prompt) - 1 :].argmax(-1).tolist()
        if reply.finish == "stop":
            assert wanted[-1] in ends
        else:
            assert len(reply.ids) == 12
        assert list(reply.ids) == wanted[: len(reply.ids)]
        without = [*tokenizer.specials.values(), *range(tokenizer.vocab_size, 512)]
        assert reply.text == tokenizer.decode([i for i in reply.ids if i not in without])


def test_an_answer_ends_before_its_stop_string(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompt = tuple(sequence(9))
    asker = Asker(decoder, tokenizer)
    whole = asker([[Answer(prompt, 20)]])[0][0].text
    stop = whole[len(whole) // 2 :][:2]
    reply = asker([[Answer(prompt, 20, (stop,))]])[0][0]
    assert (reply.text, reply.finish) == (whole[: whole.index(stop)], "stop")


def test_the_calculators_results_are_in_an_answer(
    decoder: Decoder, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced = [tokenizer.specials["<|output_start|>"], *tokenizer.encode("42"), tokenizer.specials["<|output_end|>"]]
    monkeypatch.setattr(ToolUse, "push", lambda self, token: forced)
    reply = Asker(decoder, tokenizer)([[Answer(tuple(sequence(9)), 12, tools=True)]])[0][0]
    assert list(reply.ids[1 : 1 + len(forced)]) == forced
    assert "42" not in reply.text


def test_what_is_longer_than_ten_contexts_keeps_its_end(decoder: Decoder, tokenizer: Tokenizer) -> None:
    longest = LONGEST * decoder.config.sequence_length
    ids = tuple(sequence(longest + 30))
    cut = (tokenizer.bos_id, *ids[31:])
    asked = [[Likelihood(ids, len(ids) - 3)], [Likelihood(cut, len(cut) - 3)]]
    long, short = (replies[0] for replies in Asker(decoder, tokenizer, 1)(asked))
    assert long.logprobs == pytest.approx(short.logprobs, abs=1e-5)


def test_a_reply_comes_back_from_its_json() -> None:
    for reply in (Reply((-1.5, -2.25), True), Reply(ids=(3, 4), text="港", finish="length"), Reply()):
        assert Reply.from_json(reply.as_json()) == reply
