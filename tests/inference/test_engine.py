"""Requests that share an engine are answered as if each were alone, however they come, wait, share and end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.errors import InputError
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.requests import Request
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from tests.support.decoding import SHAPES, decoder, likeliest_after, random_weights, reference, shape
from tests.support.requests import finish, sequence

GREEDY = Sampling(temperature=0)


def engine_for(name: str = "English", tokens: int = 600, **settings: int) -> Engine:
    model = decoder(name)
    per_token = Memory.bytes_per_token(model.config, model.dtype)
    return Engine(model, memory_bytes=tokens * per_token, poison=True, **settings)


def assert_all_is_given_back(engine: Engine) -> None:
    engine.kept.clear()
    assert engine.memory.free_slots == engine.memory.requests
    assert engine.memory.take(engine.memory.tokens) is not None, "rows were lost"


def answer(engine: Engine, prompt: Sequence[int], count: int, **settings: object) -> Request:
    request = engine.submit(prompt, GREEDY, count, **settings)
    finish(engine)
    return request


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_greedy_text_is_the_references_in_any_batch_and_order(name: str, data: st.DataObject) -> None:
    """Requests join, share prefixes, wait for memory and are cancelled at random; those that end are right."""
    whole = reference(shape(name), random_weights(shape(name)))
    engine = engine_for(name, tokens=150, max_requests=3, prefill_tokens=data.draw(st.sampled_from((1, 5, 16, 512))))
    requests: list[Request] = []
    cancelled = set()
    for number in range(data.draw(st.integers(2, 7))):
        base = sequence(60, data.draw(st.integers(0, 1)))
        prompt = base[: data.draw(st.integers(1, 45))] + sequence(data.draw(st.integers(0, 5)), number)
        requests.append(engine.submit(prompt, GREEDY, data.draw(st.integers(1, 12)), stop=[7]))
        for _ in range(data.draw(st.integers(0, 6))):
            engine.step()
        if data.draw(st.integers(0, 4)) == 0:
            victim = data.draw(st.sampled_from(requests))
            cancelled.add(victim)
            for _ in range(2):
                engine.cancel(victim)
    finish(engine)
    for request in requests:
        found = [token.id for token in request.answer]
        assert found == likeliest_after(whole, request.prompt.tolist(), found)[:-1]
        assert 7 not in found[:-1]
        if request.finish == "cancelled":
            assert request in cancelled
        else:
            assert request.finish == ("stop" if found[-1] == 7 else "length")
            assert request.finish == "stop" or len(found) == request.max_tokens
    assert_all_is_given_back(engine)


def test_running_requests_get_a_token_every_step_while_a_long_prompt_is_read() -> None:
    engine = engine_for(prefill_tokens=8)
    first = [engine.submit(sequence(4, i), GREEDY, 40) for i in range(3)]
    engine.step()
    engine.step()
    long = engine.submit(sequence(80, 9), GREEDY, 4)
    steps = 0
    while not long.answer:
        before = [len(r.answer) for r in first]
        engine.step()
        steps += 1
        assert [len(r.answer) for r in first] == [n + 1 for n in before]
    assert steps == 10  # 80 tokens, 8 a step


def test_the_prompts_of_a_step_are_bounded_in_all() -> None:
    engine = engine_for(prefill_tokens=10)
    requests = [engine.submit(sequence(8, i), GREEDY, 2) for i in range(4)]
    seen = []
    while not engine.idle:
        engine.step()
        seen.append([len(r.answer) for r in requests])
    assert seen[0] == [1, 0, 0, 0]
    assert seen[1][:3] == [2, 1, 0]


def test_full_memory_queues_and_goes_on() -> None:
    engine = engine_for(tokens=50, max_requests=8)
    requests = [engine.submit(sequence(20, i), GREEDY, 10) for i in range(5)]
    engine.step()
    assert (engine.running, engine.queued) == (1, 4)
    finish(engine)
    assert all(r.finish == "length" for r in requests)
    assert_all_is_given_back(engine)


def test_a_prefix_that_fills_the_memory_does_not_stand_in_the_way() -> None:
    engine = engine_for(tokens=60)
    prompt = sequence(40)
    answer(engine, prompt, 10)
    request = answer(engine, prompt, 15)
    assert request.finish == "length"


@pytest.mark.parametrize("where", ["queue", "prefill", "decode", "ended"])
def test_a_cancelled_request_gives_everything_back_once(where: str) -> None:
    engine = engine_for(max_requests=1, prefill_tokens=4)
    other = engine.submit(sequence(3), GREEDY, 2) if where == "queue" else None
    request = engine.submit(sequence(12, 1), GREEDY, 6)
    for _ in range({"queue": 1, "prefill": 2, "decode": 5, "ended": 30}[where]):
        engine.step()
    done = request.finish
    assert (done is not None) == (where == "ended")
    for _ in range(3):
        engine.cancel(request)
    assert request.finish == (done or "cancelled")
    finish(engine)
    assert other is None or other.finish == "length"
    assert_all_is_given_back(engine)


def test_a_next_turn_runs_only_what_is_new() -> None:
    engine = engine_for("Japanese-English")
    first = answer(engine, sequence(50), 10)
    prompt = [*first.ids, *sequence(5, 3)]
    second = answer(engine, prompt, 5)
    # The last token of the answer was never run; the window before it is run again.
    assert second.cached_tokens == len(first.ids) - 1 - engine.window
    assert [t.id for t in second.answer] == [t.id for t in answer(engine_for("Japanese-English"), prompt, 5).answer]


def test_an_answer_made_again_and_an_edited_prompt_use_what_they_share() -> None:
    engine = engine_for("Japanese-English")
    prompt = sequence(50)
    first = answer(engine, prompt, 10)
    again = answer(engine, prompt, 10)
    assert again.cached_tokens == 49 - engine.window  # the last token is run for its logits
    assert again.answer_ids == first.answer_ids
    edited = answer(engine, [*prompt[:30], 1, 2, 3], 10)
    assert edited.cached_tokens >= 30 - engine.window


def test_samples_of_one_prompt_read_it_once() -> None:
    engine = engine_for("Japanese-English", prefill_tokens=16)
    sampling = Sampling(temperature=1, seed=5)
    samples = [engine.submit(sequence(50), sampling, 8, sample=i) for i in range(4)]
    finish(engine)
    assert [r.cached_tokens for r in samples] == [0] + [49 - engine.window] * 3
    assert len({tuple(r.answer_ids) for r in samples}) == 4
    assert len({r.answer_ids[0] for r in samples}) > 1, "every sample has a first token of its own"


def test_a_sample_depends_on_seed_and_number_alone() -> None:
    sampling = Sampling(temperature=1, seed=11)
    alone = [answer_of(engine_for(), sampling, i) for i in range(3)]
    crowd = engine_for(prefill_tokens=3)
    neighbours = [crowd.submit(sequence(9, i), Sampling(seed=i), 30) for i in range(4)]
    together = [crowd.submit(sequence(12), sampling, 8, sample=i) for i in (2, 0, 1)]
    finish(crowd)
    assert [r.answer_ids for r in together] == [alone[i] for i in (2, 0, 1)]
    assert all(len(n.answer) == 30 for n in neighbours)


def answer_of(engine: Engine, sampling: Sampling, sample: int) -> list[int]:
    request = engine.submit(sequence(12), sampling, 8, sample=sample)
    finish(engine)
    return request.answer_ids


def test_without_a_seed_one_is_drawn_and_told() -> None:
    engine = engine_for()
    first, second = (engine.submit(sequence(12), Sampling(), 8) for _ in range(2))
    finish(engine)
    assert first.sampling.seed != second.sampling.seed
    assert answer_of(engine_for(), first.sampling, 0) == first.answer_ids


def test_the_least_recently_used_prefix_goes_first() -> None:
    engine = engine_for("Japanese-English", tokens=200)
    prompts = [sequence(50, i) for i in range(3)]
    for prompt in prompts:
        answer(engine, prompt, 2)
    assert answer(engine, prompts[0], 2).cached_tokens > 0  # used just now, in place of the one before
    answer(engine, sequence(60, 7), 2)
    assert answer(engine, prompts[1], 2).cached_tokens == 0
    assert engine.kept.tokens <= 200


def test_ids_that_are_forced_are_part_of_the_answer_and_of_what_follows() -> None:
    def after_the_second() -> Callable[[int], list[int]]:
        script = iter([[], [9, 8, 7]])
        return lambda token: next(script, [])

    plain = answer(engine_for(), sequence(10), 2)
    request = answer(engine_for(), sequence(10), 9, forced=after_the_second())
    ids = [t.id for t in request.answer]
    assert ids[:5] == [*[t.id for t in plain.answer], 9, 8, 7]
    assert [t.choice is None for t in request.answer] == [False, False, True, True, True, False, False, False, False]
    whole = reference(shape("English"), random_weights(shape("English")))
    assert ids[5:] == likeliest_after(whole, sequence(10) + ids[:5], ids[5:])[:-1]
    short = answer(engine_for(), sequence(10), 4, forced=after_the_second())
    assert [t.id for t in short.answer] == ids[:4]


def test_a_step_that_fails_ends_its_requests_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for()
    before = answer(engine, sequence(30), 4)
    broken = engine.submit([*sequence(30), 1], GREEDY, 4)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> torch.Tensor:
            raise RuntimeError("no memory on the device")

        patch.setattr(type(engine.decoder), "__call__", fail)
        assert engine.step() == []
    assert broken.finish == "error"
    assert isinstance(broken.error, RuntimeError)
    assert answer(engine, sequence(30), 4).answer_ids == before.answer_ids
    assert_all_is_given_back(engine)


def test_a_request_whose_token_cannot_be_chosen_fails_alone() -> None:
    def forced(token: int) -> list[int]:
        raise ValueError("a broken tool")

    engine = engine_for()
    broken = engine.submit(sequence(5), GREEDY, 4, forced=forced)
    fine = engine.submit(sequence(6), GREEDY, 4)
    finish(engine)
    assert (broken.finish, fine.finish) == ("error", "length")
    assert_all_is_given_back(engine)


@pytest.mark.parametrize(
    ("prompt", "count", "sentence"),
    [
        ([], 1, "the prompt is empty"),
        ([1] * 128, 1, "128 tokens and the model's context 128"),
        ([1], 0, "ask for at least one"),
        ([64], 1, "there is no token 64: ids go from 0 to 63"),
        ([1] * 100, 28, "may come to 128 tokens and the memory for keys and values holds 120"),
    ],
)
def test_what_cannot_be_answered_is_refused(prompt: list[int], count: int, sentence: str) -> None:
    engine = engine_for(tokens=120)
    with pytest.raises(InputError, match=sentence):
        engine.submit(prompt, GREEDY, count)
    assert engine.idle


@pytest.mark.parametrize("count", [0, 3])
def test_the_prompts_own_tokens_are_scored(count: int) -> None:
    engine, prompt = engine_for(prefill_tokens=7), sequence(30)
    answer(engine, prompt, 2)
    sampling = Sampling(temperature=0, logprobs=2)
    request = engine.submit(prompt, sampling, count, score_prompt=True)
    beside = engine.submit(sequence(12, 1), GREEDY, 9)
    finish(engine)
    with torch.no_grad():
        whole = reference(shape("English"), random_weights(shape("English")))
        logprobs = whole(torch.tensor([prompt]))[0].log_softmax(-1)
    assert [choice.id for choice in request.prompt_choices] == prompt[1:]
    for token, row, choice in zip(prompt[1:], logprobs, request.prompt_choices, strict=False):
        assert choice.logprob == pytest.approx(row[token].item(), abs=1e-4)
        assert [i for i, _ in choice.top] == row.topk(2).indices.tolist()
    assert len(request.answer) == count
    assert (request.finish, beside.finish) == ("length", "length")
    assert_all_is_given_back(engine)


@pytest.mark.parametrize("first", [1, 2, 17, 29, 30])
def test_a_scored_end_of_a_prompt_takes_over_what_is_known_of_its_beginning(first: int) -> None:
    engine, prompt = engine_for(prefill_tokens=7), sequence(30)
    whole = engine.submit(prompt, GREEDY, 0, score_prompt=True)
    finish(engine)
    end = engine.submit(prompt, GREEDY, 0, score_prompt=True, score_from=first)
    finish(engine)
    assert [choice.id for choice in end.prompt_choices] == prompt[first:]
    for found, wanted in zip(end.prompt_choices, whole.prompt_choices[first - 1 :], strict=True):
        assert found.logprob == pytest.approx(wanted.logprob, abs=1e-5)
    assert end.cached_tokens == max(0, first - 1 - engine.window)
    assert_all_is_given_back(engine)


def test_log_probabilities_of_named_tokens_are_reported() -> None:
    engine = engine_for()
    request = engine.submit(sequence(9), GREEDY, 2, report=(5, 3))
    finish(engine)
    with torch.no_grad():
        whole = reference(shape("English"), random_weights(shape("English")))
        row = whole(torch.tensor([request.ids]))[0, 8].log_softmax(-1)
    assert request.answer[0].choice is not None
    assert request.answer[0].choice.reported == pytest.approx([row[5].item(), row[3].item()], abs=1e-4)


def test_an_answer_ends_where_the_context_does() -> None:
    request = answer(engine_for(), sequence(100), 1000)
    assert len(request.ids) == 128
    assert request.finish == "length"
