"""How many tokens an exported tokenizer takes otherwise than ours, on texts of yours; and that none is lost.

    python benchmarks/exported_ids.py --tokenizer DIR --input F... [--json-key text]

For SentencePiece BPE and nanochat's it is none. For unigram it is where two ways to split a text weigh the same but
for the rounding of fp32 (megatron_iberis/convert/huggingface/tokenizer.py).
"""

from __future__ import annotations

import argparse
from difflib import SequenceMatcher

from megatron_iberis.convert.huggingface.tokenizer import fast_tokenizer
from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.records import Tally, read_documents
from megatron_iberis.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--input", nargs="+", required=True)
    parser.add_argument("--json-key", default="text")
    arguments = parser.parse_args()
    ours = Tokenizer.load(arguments.tokenizer)
    theirs = fast_tokenizer(ours)
    theirs.encode_special_tokens = True  # a special that is spelled in the text is text
    documents = characters = tokens = other_documents = other_tokens = 0
    for document in read_documents(find_inputs(arguments.input), arguments.json_key, Tally()):
        wanted = ours.encode(document.text)
        found = theirs.encode(document.text, add_special_tokens=False).ids
        if theirs.decode(found, skip_special_tokens=False) != document.text:
            raise SystemExit(f"a text does not come back: {document.text[:80]!r}")
        documents += 1
        characters += len(document.text)
        tokens += len(wanted)
        if found != wanted:
            same = SequenceMatcher(None, wanted, found, autojunk=False).get_matching_blocks()
            other_documents += 1
            other_tokens += len(wanted) - sum(block.size for block in same)
    print(f"{documents:,} documents, {characters:,} characters, {tokens:,} tokens ({ours.manifest['kind']})")
    print(f"otherwise: {other_tokens:,} tokens, in {other_documents:,} documents")


if __name__ == "__main__":
    main()
