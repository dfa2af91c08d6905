"""Conversations become rows: none is lost, cut in an answer or counted twice; what is learned is what was said."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_iberis.data.conversation_rows import ConversationLayout, ConversationRows
from megatron_iberis.data.conversations import Counts, Rendering, Source, conversation_ids, render_mixture
from megatron_iberis.data.rows import Rows
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import ASSISTANT_END, Message, render
from tests.support.finetuning import conversations, said
from tests.support.tokenizers import small_tokenizer

LENGTH, BATCH = 96, 8
PACKED = ConversationLayout(LENGTH, "best_fit", True, "assistant", 3, BATCH)
STRUNG = replace(PACKED, packing="concat", document_mask=False, loss_on="all")


@dataclass(frozen=True)
class Row:
    messages: list[Message]
    where: str = "a file:1"


class TaskRows(list[Row]):
    """As a task holds them."""


def rows_of(
    messages: list[list[Message]], folder: Path, layout: ConversationLayout = PACKED, **sources: Any
) -> ConversationRows:
    task = TaskRows(Row(each) for each in messages)
    source = Source("one", task, sources.get("rows", range(len(task))), sources.get("epochs", 1))
    how = Rendering(layout.row_tokens, layout.loss_on, layout.seed)
    return ConversationRows(render_mixture("tasks.mixture", [source], small_tokenizer(), how, str(folder)), layout)


def documents(rows: Rows) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and targets of each conversation in packed rows, padding left out."""
    found: list[Any] = []
    assert rows.starts is not None
    for tokens, targets, starts in zip(rows.tokens, rows.targets, rows.starts, strict=True):
        borders = [*np.flatnonzero(starts).tolist(), len(tokens)]
        for begin, end in pairwise(borders):
            if tokens[begin] == small_tokenizer().bos_id:
                ids, learned = tokens[begin:end].tolist(), targets[begin:end].tolist()
                if learned[-1] >= 0:  # a row's last target is no token of it
                    ids, learned = [*ids, learned[-1]], [*learned, -1]
                found.append((tuple(ids), tuple(learned)))
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def test_each_conversation_lies_whole_in_one_row_of_an_epoch_and_only_answers_are_learned(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    messages = [each for each in conversations(80) if len(render(tokenizer, each)[0]) <= LENGTH]
    rows = rows_of(messages, tmp_path)
    wanted = Counter[Any]()
    for each in messages:
        ids, mask = render(tokenizer, each)
        targets = [following if said else -1 for following, said in zip(ids[1:], mask[1:], strict=True)]
        wanted[(tuple(ids), (*targets, -1))] += 1
    for epoch in range(2):
        found = Counter(documents(rows.read(epoch * rows.samples_per_epoch, rows.samples_per_epoch)))
        assert found == wanted
    assert rows.rows < len(messages)


def test_the_end_of_an_answer_is_always_a_target_and_padding_never(tmp_path: Path, tokenizer: Tokenizer) -> None:
    messages = conversations(60)
    rows = rows_of(messages, tmp_path)
    read = rows.read(0, rows.samples_per_epoch)
    end = tokenizer.specials[ASSISTANT_END]
    assert (read.targets == end).sum() == (read.tokens[:, 1:] == end).sum() + ends_as_last_target(read, end)
    filled = np.array([sum(piece.length for piece in rows.pieces_of(n)) for n in range(rows.samples_per_epoch)])
    padding = np.arange(LENGTH) >= (filled - 1)[:, None]
    assert (read.targets[padding] == -1).all()
    assert (read.targets >= 0).sum() == rows.conversations.counts["one"].targets > 100


def ends_as_last_target(read: Rows, end: int) -> int:
    """Ends of answers that are the target of a row's last token, and so no token of it."""
    return int((read.targets[:, -1] == end).sum())


def test_what_is_too_long_is_cut_behind_an_answer_or_dropped_and_counted(tokenizer: Tokenizer) -> None:
    short, long = "a b", "the river runs down " * 20
    how = Rendering(60, "assistant", 0)
    two_turns = [*said("q", short), *said(long, long)]
    first = len(render(tokenizer, said("q", short))[0])
    counts = Counts()
    found = conversation_ids(tokenizer, Row(two_turns), how, counts)
    assert found is not None
    assert len(found[0]) == first
    assert found[0][-1] == tokenizer.specials[ASSISTANT_END]
    assert conversation_ids(tokenizer, Row(said("q", long)), how, counts) is None
    assert conversation_ids(tokenizer, Row(said(long, short)), how, counts) is None
    assert conversation_ids(tokenizer, Row([said("q", short)[0]]), how, counts) is None
    assert counts == Counts(
        read=4, dropped=2, cut=1, without_target=1, tokens=first, targets=sum(render(tokenizer, said("q", short))[1])
    )


def test_a_text_that_spells_the_end_of_an_answer_ends_none(tokenizer: Tokenizer) -> None:
    spelled = f"{ASSISTANT_END} " * 30
    counts = Counts()
    assert conversation_ids(tokenizer, Row(said("q", spelled)), Rendering(60, "assistant", 0), counts) is None
    assert counts.dropped == 1


def test_an_epoch_is_a_whole_number_of_steps_and_its_last_rows_are_trained(tmp_path: Path) -> None:
    rows = rows_of(conversations(50), tmp_path)
    assert rows.rows % BATCH, "the last step ought to lack rows"
    assert rows.samples_per_epoch == rows.steps_per_epoch * BATCH > rows.rows
    read = rows.read(0, rows.samples_per_epoch)
    learned = (read.targets >= 0).any(axis=1)
    assert learned[: rows.rows].all()
    assert not learned[rows.rows :].any()
    assert read.cu_seqlens is not None
    assert set(range(0, read.tokens.size, LENGTH)) <= set(read.cu_seqlens.tolist())


@pytest.mark.parametrize("layout", [PACKED, STRUNG], ids=["packed", "strung"])
def test_samples_do_not_depend_on_how_they_are_read_also_over_an_epochs_border(
    tmp_path: Path, layout: ConversationLayout
) -> None:
    rows = rows_of(conversations(50), tmp_path, layout)
    count = 3 * rows.samples_per_epoch
    together, again = rows.read(0, count), rows_of(conversations(50), tmp_path / "again", layout)
    for first in range(0, count, 5):
        alone = again.read(first, 5)
        assert np.array_equal(alone.tokens[: count - first], together.tokens[first : first + 5])
        assert np.array_equal(alone.targets[: count - first], together.targets[first : first + 5])
    epochs = [together.tokens[e * rows.samples_per_epoch : (e + 1) * rows.samples_per_epoch] for e in range(3)]
    assert not np.array_equal(epochs[0], epochs[1])
    other = rows_of(conversations(50), tmp_path, replace(layout, seed=4))
    assert not np.array_equal(other.read(0, 8).tokens, together.tokens[:8])


def test_strung_together_every_token_is_a_target_once_an_epoch(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = rows_of(conversations(50), tmp_path, STRUNG)
    read = rows.read(0, rows.rows)
    assert read.starts is None
    assert (read.targets >= 0).all()
    assert np.array_equal(read.tokens[:, 1:], read.targets[:, :-1])
    ring = Counter(read.targets.ravel().tolist())
    whole = Counter(rows.file.tokens(0, rows.file.num_tokens).tolist())
    assert (whole - ring).total() == rows.file.num_tokens - rows.rows * LENGTH < LENGTH
    assert not ring - whole
    total = sum(len(render(tokenizer, each)[0]) for each in conversations(50))
    assert rows.file.num_tokens == rows.conversations.counts["one"].targets == total


def test_strung_together_with_documents_apart_each_begins_with_its_first_token(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = rows_of(conversations(50), tmp_path, replace(STRUNG, document_mask=True))
    read = rows.read(0, rows.samples_per_epoch)
    assert read.starts is not None
    begins = read.tokens[: rows.rows, 1:] == tokenizer.bos_id
    assert np.array_equal(read.starts[: rows.rows, 1:], begins)
    assert read.starts[:, 0].all()


def test_strung_together_only_what_the_assistant_says_is_learned_where_that_is_asked_for(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    layout = replace(STRUNG, loss_on="assistant")
    rows = rows_of(conversations(50), tmp_path, layout)
    everything = rows_of(conversations(50), tmp_path, STRUNG)
    read, whole = rows.read(0, rows.rows), everything.read(0, rows.rows)
    kept = read.targets >= 0
    assert np.array_equal(read.targets[kept], whole.targets[kept])
    assert 0 < kept.sum() <= rows.conversations.counts["one"].targets
    assert kept.sum() > rows.conversations.counts["one"].targets - LENGTH
    assert not (read.targets == tokenizer.specials["<|user_start|>"]).any()


def test_rows_come_as_often_as_the_source_says_and_only_those_of_its_slice(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    messages = [said(f"q {n}", f"a {n}") for n in range(10)]
    rows = rows_of(messages, tmp_path, rows=range(2, 5), epochs=2)
    found = Counter(ids for ids, _ in documents(rows.read(0, rows.samples_per_epoch)))
    assert found == Counter({tuple(render(tokenizer, messages[n])[0]): 2 for n in (2, 3, 4)})
    assert rows.conversations.counts["one"].read == 6


def test_fewer_rows_than_a_step_has_are_a_step(tmp_path: Path) -> None:
    rows = rows_of([said("q", "a")], tmp_path)
    assert (rows.rows, rows.steps_per_epoch, rows.samples_per_epoch) == (1, 1, BATCH)
    assert (rows.read(BATCH, BATCH).targets >= 0).any(axis=1).tolist() == [True] + [False] * (BATCH - 1)


REFUSED = [
    ([], "tasks.mixture holds no conversations"),
    ([said("q", "long " * 200)] * 3, "none of the 3 conversations .* 3 are longer than a row of 96 tokens"),
    ([[said("q", "")[0]]] * 2, "none of the 2 conversations .* 2 have no message of the assistant's"),
    ([[said("q", "")[1]]], r"a file:1: message 1 \(assistant\) begins the conversation"),
]


@pytest.mark.parametrize(("messages", "message"), REFUSED)
def test_what_could_teach_nothing_is_refused_with_the_reason(
    tmp_path: Path, messages: list[list[Message]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(messages, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_little_for_a_row_of_strung_conversations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few for a row of 96"):
        rows_of([said("q", "a")], tmp_path, STRUNG)


def test_what_was_rendered_is_kept_and_a_row_that_changed_is_rendered_anew(tmp_path: Path) -> None:
    messages = conversations(20)
    first = rows_of(messages, tmp_path)
    (folder,) = tmp_path.iterdir()
    made = (folder / "conversations.bin").stat().st_mtime_ns
    rows_of(messages, tmp_path)
    assert (folder / "conversations.bin").stat().st_mtime_ns == made
    assert json.loads((folder / "conversations.json").read_text())["sources"]["one"]["read"] == 20
    messages[7] = said("q", "another answer")
    changed = rows_of(messages, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert changed.file.num_tokens != first.file.num_tokens


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be kept in .*file/cache .*--tasks.cache"):
        rows_of(conversations(3), tmp_path / "file" / "cache")


@pytest.mark.parametrize("name", ["bin", "idx", "said", "json"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_what_was_kept_and_is_damaged_is_named_with_the_way_out(tmp_path: Path, name: str, damage: str) -> None:
    rows_of(conversations(5), tmp_path)
    (folder,) = tmp_path.iterdir()
    path = folder / f"conversations.{name}"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-8])
    with pytest.raises(InputError, match=f"{folder} is damaged: delete this folder"):
        rows_of(conversations(5), tmp_path)
