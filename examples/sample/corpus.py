"""Puts the demo's corpus together and writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics as help_topics
from random import Random

from examples.sample import exercises_en, exercises_ja, topics
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import write_atomic

KINDS = ("prose", "dialogue", "question", "explanation")
"""The kinds of the hand-written documents; the others are "reference" and "exercise"."""
ENGLISH_EXERCISE_BYTES = 220_000
JAPANESE_SHARE = 0.45
"""How much of all text, in bytes, is Japanese: its exercises fill up what is wanting."""
_LINES = (8, 18)
_ATTEMPTS = 30


@dataclass(frozen=True)
class Document:
    """One line of the corpus."""

    text: str
    source: str
    kind: str
    language: str

    @property
    def size(self) -> int:
        """The text's length in UTF-8 bytes."""
        return len(self.text.encode())


@dataclass(frozen=True)
class Summary:
    """What was written: the file's size, and the bytes of text by language and by kind."""

    documents: int
    file_bytes: int
    text_bytes: int
    by_language: dict[str, int]
    by_kind: dict[str, int]


def default_sample() -> Path:
    """The folder examples/sample of the checkout that this package was loaded from."""
    return Path(__file__).resolve().parent


def read_sample(folder: Path) -> list[Document]:
    """The hand-written documents, in the order of their files' names."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise InputError(
            f"no sample documents (*.jsonl) in {folder}; the sample comes with a checkout of the repository, "
            "not with the installed package: give its folder examples/sample with --sample"
        )
    result = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                result.append(Document(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(f"{file}, line {number}: {error}") from error
    return result


def exercise_documents(
    language: str,
    exercises: Mapping[str, tuple[Callable[[Random], str], ...]],
    headings: Mapping[str, tuple[str, ...]],
    size: int,
    rng: Random,
) -> Iterator[Document]:
    """Exercise sheets of altogether about `size` bytes. No exercise comes twice."""
    seen: set[str] = set()
    subjects = list(exercises)
    number = total = 0
    while total < size:
        subject = subjects[number % len(subjects)]
        chosen = rng.sample(exercises[subject], rng.randint(3, 7))
        lines: list[str] = []
        for _ in range(rng.randint(*_LINES)):
            for _ in range(_ATTEMPTS):
                line = rng.choice(chosen)(rng)
                if line not in seen:
                    seen.add(line)
                    lines.append(line)
                    break
        heading = [rng.choice(headings[subject]), ""] if rng.random() < 0.6 else []
        text = "\n".join(heading + lines)
        document = Document(text, f"exercise/{language}/{subject}/{number:04}", "exercise", language)
        total += document.size
        number += 1
        yield document


def build(sample: Path, seed: int = 0) -> list[Document]:
    """All documents of the corpus, shuffled."""
    rng = Random(seed)
    documents = read_sample(sample)
    documents += [
        Document(text, f"python-help/{name}", "reference", "en") for name, text in topics.documents(help_topics)
    ]
    documents += exercise_documents("en", exercises_en.EXERCISES, exercises_en.HEADINGS, ENGLISH_EXERCISE_BYTES, rng)
    have = _bytes_by(documents, lambda document: document.language)
    missing = int(have["en"] * JAPANESE_SHARE / (1 - JAPANESE_SHARE)) - have["ja"]
    documents += exercise_documents("ja", exercises_ja.EXERCISES, exercises_ja.HEADINGS, missing, rng)
    rng.shuffle(documents)
    return documents


def write_corpus(output: Path, sample: Path, seed: int = 0) -> Summary:
    """Writes the demo's corpus to `output`, one JSON object a line, and says what is in it.

    It consists of the hand-written documents in the folder `sample`, Python's help topics, and generated
    exercises in both languages. The same seed gives the same bytes on the same version of Python.
    The file appears under its name only when it is complete.
    """
    return _write(output, build(sample, seed))


def write_by_language(output: Path, sample: Path, seed: int = 0) -> dict[Path, Summary]:
    """The same as a file a language: of corpus.jsonl corpus-en.jsonl and corpus-ja.jsonl."""
    documents = build(sample, seed)
    found = {}
    for language in sorted({document.language for document in documents}):
        path = output.with_name(f"{output.stem}-{language}{output.suffix}")
        found[path] = _write(path, [document for document in documents if document.language == language])
    return found


def _write(output: Path, documents: list[Document]) -> Summary:
    data = "".join(json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in documents).encode()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, data)
    return Summary(
        documents=len(documents),
        file_bytes=len(data),
        text_bytes=sum(document.size for document in documents),
        by_language=dict(sorted(_bytes_by(documents, lambda document: document.language).items())),
        by_kind=dict(sorted(_bytes_by(documents, lambda document: document.kind).items())),
    )


def _bytes_by(documents: Iterable[Document], key: Callable[[Document], str]) -> Counter[str]:
    result: Counter[str] = Counter()
    for document in documents:
        result[key(document)] += document.size
    return result
