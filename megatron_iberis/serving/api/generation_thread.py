"""`GenerationThread`: the one thread that loads the model, owns the engine and steps it, for all clients together.

* The event loop asks with `ask`, which gives a `Job`, and gives up with `cancel`; both go through a queue that is
  emptied between steps, so that whoever leaves frees its place within a step.
* What a step gives goes back to the loop in one call, whoever it is for.
* A step that fails ends the jobs that were in it with a `Failure`, and the engine goes on. Should the engine itself
  fail, everything ends, and `state` is "failed" with the `reason`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal

from megatron_iberis.errors import InputError, sentence
from megatron_iberis.inference.requests import Request, Token
from megatron_iberis.serving.api.answers import Answer, Ask, Part
from megatron_iberis.serving.api.opened import Opened
from megatron_iberis.serving.api.pace import PrefillPace

log = logging.getLogger(__name__)

State = Literal["loading", "ok", "stopping", "failed"]
Why = Literal["invalid", "failed", "time", "stopping"]
"""Why there is no answer: it can't be asked for; the step went wrong; time is over; the server stops."""


@dataclass(frozen=True)
class Failure:
    """There will be nothing more of the whole job."""

    why: Why
    message: str


class Accepted:
    """All answers of a job are in the engine's queue."""


class Silence:
    """Nothing has come for a while: not of the thread, but of a timer of whoever reads the events."""


Event = Accepted | Failure | Silence | tuple[int, Part]
"""A part of the answer with this number."""


@dataclass(eq=False)
class Job:
    """The answers of one HTTP request. The loop reads `events`; after a `Failure` nothing follows."""

    asks: Sequence[Ask]
    deadline: float
    """Of time.monotonic()."""
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    answers: dict[int, Answer] = field(default_factory=dict)
    """Those that are not over yet; of the thread."""
    over: bool = False
    """Of the thread, as well."""


class GenerationThread:
    """See above. To be used from the event loop that `start` was called in.

    open_model: called on the thread. prefill_tokens: of prompts in a step while others are being answered, at most
    (pace.py); alone: while nobody is. step_done: called after each step with its seconds and the number of tokens
    that it gave. failed: called in the loop when `state` has become "failed".
    """

    def __init__(
        self,
        open_model: Callable[[], Opened],
        prefill_tokens: int = 32,
        alone: int = 256,
        step_done: Callable[[float, int], None] = lambda seconds, tokens: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.error: BaseException | None = None
        """What the thread failed of."""
        self.open = 0
        """Answers that were asked for and are not over."""
        self.opened: Opened | None = None
        self._open_model, self._step_done, self._failed = open_model, step_done, failed
        self._pace, self._alone = PrefillPace(prefill_tokens), max(prefill_tokens, alone)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._outbox: list[tuple[Job, Event]] = []
        self._ended = 0
        self._jobs: dict[Job, None] = {}
        self._of_request: dict[Request, tuple[Job, int]] = {}
        self._stopping = False
        """Of the loop; the thread learns of it by a message, which sets:"""
        self._stop_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    # From the event loop

    def start(self) -> None:
        """Begins to load the model."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def ask(self, asks: Sequence[Ask], seconds: float) -> Job:
        """Asks for answers, which have so many seconds; how they fare is told by the job's events."""
        job = Job(asks, time.monotonic() + seconds)
        self.open += len(asks)
        self._inbox.put(lambda: self._begin(job))
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more. A job that is over stays as it is."""
        self._inbox.put(lambda: self._end(job))

    def stop(self, seconds: float) -> None:
        """Ends what has not begun, and what is not over after so many seconds; the thread ends with the last job."""
        self._stopping = True

        def stop() -> None:
            self._stop_at = time.monotonic() + seconds

        self._inbox.put(stop)

    async def ended(self, seconds: float) -> None:
        """Waits for the thread's end, so long at most: it may be at loading a model."""
        last = time.monotonic() + seconds
        while self._thread.is_alive() and time.monotonic() < last:
            await asyncio.sleep(0.01)

    @property
    def state(self) -> State:
        """Only "ok" can answer."""
        if self.error:
            return "failed"
        if self._stopping:
            return "stopping"
        return "ok" if self.opened else "loading"

    @property
    def reason(self) -> str:
        """Why it has failed."""
        return sentence(self.error) or f"{type(self.error).__name__}: see the server's log." if self.error else ""

    @property
    def running(self) -> int:
        """Answers that are being made."""
        return self.opened.engine.running if self.opened else 0

    # On the thread

    def _run(self) -> None:
        try:
            self.opened = self._open_model()
            while self._stop_at is None or self._jobs:
                self._take_messages()
                self._send()  # who was accepted need not wait for a step to learn it
                self._step()
                self._send()
        except BaseException as error:
            if sentence(error) is None:
                log.exception("the generation thread has failed")
            self.error = error
            self._in_loop(self._failed)
            self._refuse_all()

    def _refuse_all(self) -> None:
        """All that is left to do when the engine has failed."""
        while True:
            for job in list(self._jobs):
                job.answers.clear()
                self._fail(job, "failed", f"the model has stopped working: {self.reason}")
            self._send()
            if self._stop_at is not None:
                return
            self._inbox.get()()

    def _take_messages(self) -> None:
        """Waits for one if there is nothing else to do."""
        wait = not self._jobs and self._stop_at is None
        try:
            while True:
                self._inbox.get(block=wait)()
                wait = False
        except Empty:
            pass

    def _begin(self, job: Job) -> None:
        self._jobs[job] = None
        if self.error:
            return
        if self._stop_at is not None:
            return self._fail(job, "stopping", "the server is shutting down.")
        assert self.opened is not None
        try:
            for number, ask in enumerate(job.asks):
                answer = Answer(ask, self.opened.engine, self.opened.tokenizer)
                job.answers[number] = answer
                self._of_request[answer.request] = job, number
        except InputError as error:
            return self._fail(job, "invalid", str(error).replace("sampling.", ""))
        except Exception as error:
            return self._blame(job, error)
        self._outbox.append((job, Accepted()))

    def _step(self) -> None:
        """A step of the engine, and what it has given to whom."""
        if not self._jobs:
            return
        assert self.opened is not None
        engine = self.opened.engine
        answering = any(answer.request.answer for job in self._jobs for answer in job.answers.values())
        engine.prefill_tokens = self._pace.tokens if answering else self._alone
        started = time.monotonic()
        given = engine.step()
        if answering:
            self._pace.note(time.monotonic() - started, engine.read)
        tokens: dict[Job, list[tuple[int, Token]]] = defaultdict(list)
        for request, token in given:
            job, number = self._of_request[request]
            tokens[job].append((number, token))
        for job in list(self._jobs):
            try:
                for number, token in tokens[job]:
                    job.answers[number].push(token)
                self._tell(job, started)
            except Exception as error:
                self._blame(job, error)
        self._step_done(time.monotonic() - started, len(given))

    def _tell(self, job: Job, now: float) -> None:
        """Tells what is new of a job; ends it if its time is over, or something went wrong."""
        late = now > job.deadline or (self._stop_at is not None and now > self._stop_at)
        begun = len(job.answers) < len(job.asks) or any(a.request.answer for a in job.answers.values())
        for number, answer in list(job.answers.items()):
            request = answer.request
            if request.error:
                return self._blame(job, request.error)
            if self._stop_at is not None and (late or not request.state):
                if request.finish is None:
                    return self._fail(job, "stopping", "the server is shutting down.")
            elif late and request.finish is None:
                if not begun:
                    return self._fail(job, "time", "the answer did not begin within the server's time limit.")
                self.opened.engine.cancel(request)  # type: ignore[union-attr]
            if (part := answer.part()) is not None:
                self._outbox.append((job, (number, part)))
                if part.finish:
                    self._forget(job, number)
        if not job.answers:
            self._end(job)

    def _blame(self, job: Job, error: Exception) -> None:
        log.error("an answer has failed", exc_info=error)
        self._fail(job, "failed", "making this answer has failed: see the server's log.")

    def _fail(self, job: Job, why: Why, message: str) -> None:
        self._outbox.append((job, Failure(why, message)))
        self._end(job)

    def _end(self, job: Job) -> None:
        """The only way in which a job ends."""
        if job.over:
            return
        job.over = True
        del self._jobs[job]
        for number in list(job.answers):
            self._forget(job, number)
        self._ended += len(job.asks)

    def _forget(self, job: Job, number: int) -> None:
        answer = job.answers.pop(number)
        del self._of_request[answer.request]
        self.opened.engine.cancel(answer.request)  # type: ignore[union-attr]

    def _send(self) -> None:
        """What there is to be told, to the loop."""
        events, ended = self._outbox, self._ended
        self._outbox, self._ended = [], 0
        if not (events or ended):
            return

        def deliver() -> None:
            self.open -= ended
            for job, event in events:
                job.events.put_nowait(event)

        self._in_loop(deliver)

    def _in_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # it is closed: nobody is there any more
            self._loop.call_soon_threadsafe(call)
