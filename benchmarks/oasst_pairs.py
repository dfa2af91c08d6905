"""Pairs of preferences out of OpenAssistant's ranked replies: a .jsonl of prompt, chosen and rejected a line.

    python benchmarks/oasst_pairs.py oasst1_en_validation.jsonl --output oasst_pairs.jsonl [--val-share 0.2]

* The input is oasst1's messages, one a line: message_id, parent_id, message_tree_id, role, text, rank (0: the best).
* A pair is two replies of the assistant's to the same message, both ranked, the better one chosen; its prompt is all
  that was said before them. Each two of a message's replies are a pair.
* With --val-share, whole conversations (trees), chosen by a hash of their ids, go to OUTPUT's name with _val.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

Node = dict[str, Any]
ROLES = {"prompter": "user", "assistant": "assistant"}


def pairs_of(messages: Iterable[Node]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id of the tree, pair) each, in the order of the file."""
    by_id = {node["message_id"]: node for node in messages}
    replies: dict[str, list[Node]] = defaultdict(list)
    for node in by_id.values():
        if node["role"] == "assistant" and node["rank"] is not None and not node["deleted"]:
            replies[node["parent_id"]].append(node)
    for parent, answers in replies.items():
        prompt = [{"role": ROLES[each["role"]], "content": each["text"]} for each in path_to(by_id, parent)]
        for better, worse in combinations(sorted(answers, key=lambda each: each["rank"]), 2):
            if better["rank"] < worse["rank"]:
                pair = {"prompt": prompt, "chosen": better["text"], "rejected": worse["text"]}
                yield better["message_tree_id"], pair


def path_to(by_id: dict[str, Node], message: str | None) -> list[Node]:
    """The messages from the root to this one."""
    path = []
    while message is not None:
        path.append(by_id[message])
        message = path[-1]["parent_id"]
    return path[::-1]


def is_held_out(tree: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(tree.encode()).digest()[:8], "big") < share * 2**64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--val-share", type=float, default=0.0)
    arguments = parser.parse_args()
    with arguments.input.open(encoding="utf-8") as lines:
        found = list(pairs_of(json.loads(line) for line in lines))
    val = arguments.output.with_stem(arguments.output.stem + "_val")
    for path, held_out in ((arguments.output, False), (val, True)):
        chosen = [pair for tree, pair in found if is_held_out(tree, arguments.val_share) == held_out]
        if chosen or not held_out:
            path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in chosen), encoding="utf-8")
            print(f"{path}: {len(chosen):,} pairs")


if __name__ == "__main__":
    main()
