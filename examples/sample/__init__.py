"""The demo's corpus: the sample documents, Python's help topics and generated exercises.

python -m examples.sample --output demo/corpus.jsonl
"""

from examples.sample.corpus import Document, Summary, default_sample, read_sample, write_corpus

__all__ = ["Document", "Summary", "default_sample", "read_sample", "write_corpus"]
