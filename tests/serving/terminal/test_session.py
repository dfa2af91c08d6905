"""A talk keeps what was said, as it was said; what does not fit or was not answered leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.serving.terminal.session import Request, Session
from megatron_iberis.serving.terminal.settings import NAMES, Settings
from megatron_iberis.tokenizer.chat import render_for_completion
from tests.support.scripted import Scripted
from tests.support.tokenizers import small_tokenizer

TOKENIZER = small_tokenizer()
CALL = ["It is ", "<|python_start|>", "1+1", "<|python_end|>", "<|output_start|>", "2", "<|output_end|>", "2."]


def session(
    *answers: list[str], is_chat: bool = True, system: str = "", context: int = 400, **settings: str
) -> Session:
    chosen = Settings()
    for name, value in settings.items():
        chosen = chosen.with_value(name, value)
    return Session(Scripted(TOKENIZER, answers or [["yes"]], context), is_chat, chosen, system)


def answer(talk: Session, request: Request) -> str:
    pieces = list(request.pieces(talk.generator))
    talk.keep([i for piece in pieces for i in piece.ids], pieces[-1].usage)
    return "".join(piece.text for piece in pieces)


def said(*texts: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]


def test_the_prompt_is_the_conversation_as_it_is_trained_on() -> None:
    talk = session(CALL, ["fine"], system="Be kind.")
    assert answer(talk, talk.ask("1+1?")) == "It is 2."
    parts = [
        {"type": "text", "text": "It is "},
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "2."},
    ]
    assert talk.messages == said("1+1?", parts)
    request = talk.ask("<|assistant_end|>東")
    system = {"role": "system", "content": "Be kind."}
    assert request.prompt == render_for_completion(TOKENIZER, [system, *said("1+1?", parts, "<|assistant_end|>東")])
    assert (request.tools, request.tokens) == (True, 512)


def test_a_question_without_an_answer_leaves_no_trace() -> None:
    talk = session()
    answer(talk, talk.ask("a"))
    talk.ask("b")
    talk.keep([])
    assert talk.messages == said("a", "yes")
    talk.again()
    talk.keep([])  # the answer that was to be replaced is still there
    assert talk.messages == said("a", "yes")
    with pytest.raises(InputError, match="the prompt is 912 tokens"):
        talk.ask("long " * 300)
    assert talk.messages == said("a", "yes")
    with pytest.raises(InputError, match="lone surrogate"):
        talk.ask("\ud800")
    assert talk.messages == said("a", "yes")
    empty = session()
    empty.ask("a")
    empty.keep([])
    assert empty.messages == []


def test_a_broken_off_answer_is_kept_without_half_a_character() -> None:
    talk = session(["ab\u2581"])
    ids = [i for piece in talk.ask("a").pieces(talk.generator) for i in piece.ids]
    talk.keep(ids[:-1])
    assert talk.messages == said("a", "ab")


def test_again_and_undo() -> None:
    talk = session(["one"], ["two"], ["three"])
    with pytest.raises(InputError, match="no question"):
        talk.again()
    with pytest.raises(InputError, match="nothing to take back"):
        talk.undo()
    answer(talk, talk.ask("a"))
    answer(talk, talk.ask("b"))
    answer(talk, talk.again())
    assert talk.messages == said("a", "one", "b", "three")
    talk.undo()
    assert talk.messages == said("a", "one")
    talk.undo()
    assert talk.messages == []


def test_seeds() -> None:
    talk = session(seed="5")
    requests = [talk.ask("a")]
    talk.keep([70])
    for _ in range(2):
        requests.append(talk.again())
        talk.keep([70])
    requests.append(talk.ask("b"))
    assert [request.sampling.seed for request in requests] == [5, 6, 7, 5]
    assert talk.seed == 5
    free = session()
    seeds = {free.ask("a").sampling.seed, (free.keep([70]), free.again())[1].sampling.seed}
    assert len(seeds) == 2
    assert None not in seeds
    assert free.seed in seeds
    last = session(seed=str(2**63 - 1))
    answer(last, last.ask("a"))
    assert last.again().sampling.seed == 0


@pytest.mark.parametrize("is_chat", [True, False])
def test_a_prompt_that_is_too_long_is_refused_or_loses_what_is_oldest(is_chat: bool) -> None:
    talk = session(is_chat=is_chat, context=60, tokens="20")
    for text in ("a", "b", "c"):
        answer(talk, talk.ask(text))
    with pytest.raises(InputError, match=r"the prompt is \d+ tokens and the model's context, .*, 60: shorten"):
        talk.ask("word " * 60)
    talk.settings = talk.settings.with_value("truncate", "left")
    if is_chat:
        for _ in range(10):
            prompt = talk.ask("d").prompt
            assert len(prompt) <= 40
            assert TOKENIZER.decode(prompt).endswith(
                "yes<|assistant_end|><|user_start|>d<|user_end|><|assistant_start|>"
            )
            talk.keep(TOKENIZER.encode("yes"))
        assert len(talk.messages) == 26  # what is left out of the prompt is not forgotten
        with pytest.raises(InputError, match=r"the last question is \d+ tokens long and there is room for 40"):
            talk.ask("word " * 60)
    else:
        prompt = talk.ask("x" + "word " * 60 + "end").prompt
        assert len(prompt) == 40
        assert prompt[0] == TOKENIZER.bos_id
        assert TOKENIZER.decode(prompt).endswith("word end")


def test_a_base_model_continues_the_last_text_alone() -> None:
    talk = session([" a time"], [" end"], is_chat=False)
    assert answer(talk, talk.ask("Once upon")) == " a time"
    request = talk.ask("The")
    assert request.prompt == [TOKENIZER.bos_id, *TOKENIZER.encode("The")]
    assert not request.tools
    for attempt in (lambda: talk.set_system("a"), lambda: talk.save(Path("x")), lambda: talk.load(Path("x"))):
        with pytest.raises(InputError, match="this is a base model"):
            attempt()
    with pytest.raises(InputError, match="this is a base model"):
        session(is_chat=False, system="a")


def test_what_was_saved_is_loaded_as_it_was(tmp_path: Path) -> None:
    talk = session(CALL, ["よし"], system="親切に。")
    path = tmp_path / "talk.json"
    with pytest.raises(InputError, match="nothing to save"):
        talk.save(path)
    answer(talk, talk.ask("1+1?"))
    answer(talk, talk.ask("東\n京"))
    talk.save(path)
    talk.save(path)
    assert "親切に。" in path.read_text(encoding="utf-8")
    other = session()
    other.load(path)
    assert (other.system, other.messages) == (talk.system, talk.messages)
    assert other.ask("b").prompt == talk.ask("b").prompt


def test_conversations_of_others_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    path.write_text(
        json.dumps([{"role": "developer", "content": [{"type": "text", "text": "Be kind."}]}, *said("a")])
    )
    talk = session()
    talk.load(path)
    assert (talk.system, talk.messages, talk.unanswered) == ("Be kind.", said("a"), True)
    assert answer(talk, talk.again()) == "yes"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no conversation, which is JSON"),
        (b"\xff\x00", "is no conversation, which is JSON"),
        (b"[" * 100_000, "is no conversation, which is JSON"),
        (b"{}", "messages must be a list"),
        (b"3", "messages must be a list"),
        (b'{"messages": []}', "there is no user message"),
        (b'[{"role": "user"}]', r"message 1 \(user\) has no content"),
        (b'[{"role": "user", "content": "\\ud800"}]', "lone surrogate"),
        (b'[{"role": "tool", "content": "a"}]', "message 1 has the role 'tool'"),
    ],
)
def test_a_file_that_holds_no_conversation_is_neither_loaded_nor_replaced(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    talk = session(system="s")
    answer(talk, talk.ask("a"))
    for attempt in (talk.load, talk.save):
        with pytest.raises(InputError, match=why):
            attempt(path)
    assert (talk.system, talk.messages, path.read_bytes()) == ("s", said("a", "yes"), content)


def test_settings_go_to_text_and_back() -> None:
    settings = Settings()
    for name in NAMES:
        assert settings.with_value(name, settings.value(name)) == settings
    changed = settings.with_value("top-k", "7").with_value("min_p", "0.1").with_value("seed", "-3")
    assert (changed.sampling.top_k, changed.sampling.min_p, changed.sampling.seed) == (7, 0.1, -3)
    assert changed.with_value("seed", "none").value("seed") == "none"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("temperature", "hot", "temperature is 'hot': it must be a finite number"),
        ("temperature", "-1", "temperature is -1.0: it must be at least 0"),
        ("top-k", "1.5", "top_k is '1.5': it must be a whole number"),
        ("tokens", "0", "tokens is 0: it must be at least 1"),
        ("truncate", "right", "truncate is 'right': it must be left or off"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, value: str, why: str) -> None:
    with pytest.raises(InputError) as found:
        Settings().with_value(name, value)
    assert str(found.value).startswith(why)
