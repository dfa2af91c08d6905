"""One thread makes all answers; what goes wrong there is known here; an answer that is given up is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.inference.pieces import Piece, Pieces
from megatron_iberis.serving.terminal.session import Session
from megatron_iberis.serving.terminal.settings import Settings
from megatron_iberis.serving.terminal.worker import Stopped, Worker
from tests.support.scripted import Scripted
from tests.support.tokenizers import small_tokenizer


class Watched(Scripted):
    """Keeps the threads that it was asked on; fails after so many pieces."""

    threads: set[int]
    fails: BaseException | None = None

    def generate(self, *arguments: object, **named: object) -> Pieces:
        self.threads.add(threading.get_ident())
        for number, piece in enumerate(super().generate(*arguments, **named)):  # type: ignore[arg-type]
            if self.fails and number == 2:
                raise self.fails
            yield piece


def watched(pause: float = 0.0) -> tuple[Watched, Session]:
    generator = Watched(small_tokenizer(), [["one two three"]], pause=pause)
    generator.threads = set()
    return generator, Session(generator, True, Settings())


def test_all_answers_are_made_on_one_other_thread() -> None:
    generator, session = watched()
    worker = Worker(generator)
    for _ in range(3):
        with worker.answer(session.ask("a")) as pieces:
            found: list[Piece] = list(pieces)
        session.keep([70])
        assert "".join(piece.text for piece in found) == "one two three"
    assert len(generator.threads) == 1
    assert threading.get_ident() not in generator.threads


@pytest.mark.parametrize("error", [InputError("no room"), ZeroDivisionError("a fault")])
def test_what_goes_wrong_is_raised_to_who_waits(error: Exception) -> None:
    generator, session = watched()
    worker = Worker(generator)
    generator.fails = error
    with worker.answer(session.ask("a")) as pieces:
        assert [next(pieces).ids, next(pieces).ids]
        with pytest.raises(type(error)) as found:
            next(pieces)
    assert found.value is error
    generator.fails = None
    session.keep([])
    with worker.answer(session.ask("b")) as pieces:
        assert list(pieces)


def test_ctrl_c_closes_the_answer_once_and_only_then_means_what_it_did() -> None:
    generator, session = watched(pause=0.02)
    worker = Worker(generator)
    before = signal.getsignal(signal.SIGINT)
    with worker.answer(session.ask("a")) as pieces:
        next(pieces)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            list(pieces)
        os.kill(os.getpid(), signal.SIGINT)  # a second time does no harm
    assert signal.getsignal(signal.SIGINT) is before
    session.keep([70])
    with worker.answer(session.ask("b")) as pieces:  # begins when the first is closed
        assert len(list(pieces)) > 2
    assert generator.closed == 1


def test_ctrl_c_may_come_in_the_middle_of_ctrl_c() -> None:
    for _ in range(5):
        generator, session = watched(pause=0.02)
        storm = [sys.executable, "-c", f"import os\nfor _ in range(3000): os.kill({os.getpid()}, 2)"]
        with Worker(generator).answer(session.ask("a")) as pieces:
            next(pieces)
            with subprocess.Popen(storm) as pressing, pytest.raises(Stopped):
                list(pieces)
            assert pressing.returncode == 0


def test_an_answer_that_nobody_waits_for_is_given_up() -> None:
    generator, session = watched(pause=0.02)
    with Worker(generator).answer(session.ask("a")) as pieces:
        next(pieces)
    deadline = time.monotonic() + 10
    while not generator.closed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
