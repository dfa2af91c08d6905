"""Ranked replies become pairs: the better one is chosen, whole conversations are held out."""

from __future__ import annotations

from typing import Any

from benchmarks.oasst_pairs import is_held_out, pairs_of


def node(name: str, parent: str | None, rank: int | None = None, deleted: bool = False) -> dict[str, Any]:
    role = "assistant" if name.startswith("a") else "prompter"
    tree = {"message_tree_id": "p1", "deleted": deleted, "rank": rank}
    return {"message_id": name, "parent_id": parent, "role": role, "text": name.upper(), **tree}


def test_each_two_ranked_replies_to_a_message_are_a_pair() -> None:
    messages = [
        node("p1", None),
        node("a1", "p1", 1),
        node("a2", "p1", 0),
        node("a3", "p1", 2),
        node("a4", "p1", 3, deleted=True),
        node("a5", "p1"),
        node("p2", "a1"),
        node("a6", "p2", 0),
        node("a7", "p2", 1),
    ]
    found = list(pairs_of(messages))
    assert [(pair["chosen"], pair["rejected"]) for _, pair in found[:3]] == [("A2", "A1"), ("A2", "A3"), ("A1", "A3")]
    assert found[0][1]["prompt"] == [{"role": "user", "content": "P1"}]
    assert found[3:] == [
        (
            "p1",
            {
                "prompt": [
                    {"role": "user", "content": "P1"},
                    {"role": "assistant", "content": "A1"},
                    {"role": "user", "content": "P2"},
                ],
                "chosen": "A6",
                "rejected": "A7",
            },
        )
    ]


def test_about_the_share_that_is_asked_for_is_held_out() -> None:
    held_out = [is_held_out(str(tree), 0.3) for tree in range(1000)]
    assert 250 < sum(held_out) < 350
    assert not any(is_held_out(str(tree), 0.0) for tree in range(1000))
