"""The Hugging Face Hub: the published data sets by name, how to fetch one (resumable, verified), how to send a model.

A few small sets are on no Hub: their files are fetched from where their authors have them, at one commit for good.

* All files of a set come from one revision, which `source.json` beside them keeps: a download that was stopped goes
  on with that one, even if the set has changed since.
* Every file is compared with the hash that the Hub gives for it; one that differs is fetched once more.
* huggingface_hub does the transfer: HF_ENDPOINT, HF_TOKEN and proxies work as always. A broken connection is taken up
  in the middle of the file; of a run that was killed every whole file stays, the one in transfer begins again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import write_atomic, write_json
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.storage.refusals import check_writable

SOURCE_FILE = "source.json"
_DATA = ("*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv", "*.zip", "*.gz", "*.zst")


GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class PublishedSet:
    """A data set on the Hugging Face Hub: its repository, what it is, and which of its files are data."""

    repository: str
    what: str
    files: tuple[str, ...] = _DATA
    commit: str = ""
    """Of a repository on GitHub: the one from which `pinned` are fetched."""
    pinned: tuple[tuple[str, str], ...] = ()
    """(path in that repository, git's sha1 of the content) each."""


_JGLUE = "6f071c09316baae89c3d083a90985b4b1cb9968c"
SETS = {
    "finedataset-13b-jpen": PublishedSet(
        "RikkaBotan/FineDataset_13B_JpEn", "pretraining text, Japanese and English", ("*.parquet",)
    ),
    "fineweb-edu-100b-shuffle": PublishedSet(
        "karpathy/fineweb-edu-100b-shuffle", "pretraining text, English", ("shard_*.parquet",)
    ),
    "smoltalk": PublishedSet("HuggingFaceTB/smol-smoltalk", "conversations, English"),
    "smoltalk-ja": PublishedSet("RikkaBotan/Cute_Synthetic_smoltalk_jp_sft", "conversations, Japanese"),
    "arc": PublishedSet("allenai/ai2_arc", "evaluation: ARC-Easy and ARC-Challenge"),
    "mmlu": PublishedSet("cais/mmlu", "evaluation: MMLU, with its auxiliary training set"),
    "gsm8k": PublishedSet("openai/gsm8k", "evaluation and training: GSM8K"),
    "humaneval": PublishedSet("openai/openai_humaneval", "evaluation: HumanEval"),
    "jcommonsenseqa": PublishedSet("leemeng/jcommonsenseqa-v1.1", "evaluation: JCommonsenseQA"),
    "jmmlu": PublishedSet("nlp-waseda/JMMLU", "evaluation: JMMLU"),
    "jhumaneval": PublishedSet("kogi-jwu/jhumaneval", "evaluation: JHumanEval"),
    "mgsm": PublishedSet("juletxara/mgsm", "evaluation: MGSM, Japanese and English", ("mgsm_ja.tsv", "mgsm_en.tsv")),
    "xwinograd": PublishedSet("Muennighoff/xwinograd", "evaluation: XWinograd, Japanese", ("jp.jsonl",)),
    "jsquad": PublishedSet(
        "yahoojapan/JGLUE",
        "evaluation: JSQuAD",
        commit=_JGLUE,
        pinned=(("datasets/jsquad-v1.3/valid-v1.3.json", "bcde414e0b7131607bb1fa2c4542dd888f68771a"),),
    ),
    "jnli": PublishedSet(
        "yahoojapan/JGLUE",
        "evaluation: JNLI",
        commit=_JGLUE,
        pinned=(("datasets/jnli-v1.3/valid-v1.3.json", "bd1cf766540d75fb189a87a9a7c8e1a31e1565e0"),),
    ),
    "niilc": PublishedSet(
        "mynlp/niilc-qa",
        "evaluation: NIILC",
        commit="b6d47968b2e301a5e953fb1922a08ed56099646b",
        pinned=(
            ("data/NIILC-ECQA2015_dev.xml", "b6c2eb143147b3a10add08a07de78bb6d7b9e81a"),
            ("data/NIILC-ECQA2015_test.xml", "bdc57d6cf73f00f2379d22b4586c945fc2c003bf"),
        ),
    ),
    "words": PublishedSet(
        "dwyl/english-words",
        "English words, for the spelling tasks",
        commit="20f5cc9b3f0ccc8ce45d814c532b7c2031bba31c",
        pinned=(("words_alpha.txt", "d3a119e7ce57d068c3f3c9cbd694fc2ff14571ab"),),
    ),
}


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it; `digest` is sha256 of the content, or git's sha1 where it is kept in git."""

    path: str
    size: int
    digest: str


def find_set(name: str) -> PublishedSet:
    """InputError naming all sets if there is none of that name."""
    if name not in SETS:
        raise InputError(f"there is no data set {name!r}: choose among {', '.join(SETS)}.")
    return SETS[name]


def download(
    name: str,
    output: Path,
    shards: int | None = None,
    progress: Callable[[RemoteFile, int, int], None] = lambda file, number, of: None,
) -> list[Path]:
    """Fetches the set (its first `shards` files) into the folder `output`; returns the files.

    `progress(file, number, of)` is called before each. InputError if the network fails (what has come is kept, the
    same call resumes), if a file differs from the Hub's twice, or if `output` holds another set.
    """
    wanted = find_set(name)
    if shards is not None and shards < 1:
        raise InputError(f"there can't be {shards} shards: use --shards 1 or more.")
    check_writable(output, folder=True)
    if wanted.pinned:
        return _download_pinned(wanted, output, progress)
    revision = _kept_revision(wanted, output)
    revision, listed = _listing(wanted, revision)
    if not listed:
        raise InputError(
            f"{wanted.repository} holds no data files at revision {revision}: look at its page on the Hub."
        )
    output.mkdir(parents=True, exist_ok=True)
    chosen = listed[:shards]
    write_json(output / SOURCE_FILE, {"repository": wanted.repository, "revision": revision, "files": len(listed)})
    paths = []
    for number, file in enumerate(chosen, 1):
        progress(file, number, len(chosen))
        paths.append(_fetch(wanted, revision, file, output))
    for left_over in (output / ".cache").rglob("*.incomplete"):  # of runs that were killed
        left_over.unlink(missing_ok=True)
    return paths


def _kept_revision(wanted: PublishedSet, output: Path) -> str | None:
    """The revision that an earlier download into `output` began with."""
    try:
        kept = json.loads((output / SOURCE_FILE).read_bytes())
        repository, revision = kept["repository"], kept["revision"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{output / SOURCE_FILE} is damaged: remove it, or choose another folder.") from None
    if repository != wanted.repository:
        raise InputError(f"{output} holds {repository}: choose another folder for {wanted.repository}.")
    found: str = revision
    return found


def _listing(wanted: PublishedSet, revision: str | None) -> tuple[str, list[RemoteFile]]:
    """The revision (the newest, if none is given) and its data files by name."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    def ask() -> tuple[str, list[RemoteFile]]:
        api = HfApi()
        found = revision or str(api.dataset_info(wanted.repository).sha)
        tree = api.list_repo_tree(wanted.repository, repo_type="dataset", revision=found, recursive=True)
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        files = [RemoteFile(e.path, e.size, e.lfs.sha256 if e.lfs else e.blob_id) for e in entries]
        return found, [f for f in files if any(fnmatch(Path(f.path).name, pattern) for pattern in wanted.files)]

    found, files = _online(wanted.repository, ask)
    return found, sorted(files, key=lambda file: file.path)


def _fetch(wanted: PublishedSet, revision: str, file: RemoteFile, output: Path) -> Path:
    from huggingface_hub import hf_hub_download

    def transfer(again: bool) -> Path:
        options: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "local_dir": output}
        return Path(hf_hub_download(wanted.repository, file.path, force_download=again, **options))

    for again in (False, True):
        path = _online(wanted.repository, lambda again=again: transfer(again))  # type: ignore[misc]
        if path.stat().st_size == file.size and _digest(path, file.digest) == file.digest:
            return path
    raise InputError(f"{path} is not what {wanted.repository} lists (another hash), twice: try again later.")


def _download_pinned(
    wanted: PublishedSet, output: Path, progress: Callable[[RemoteFile, int, int], None]
) -> list[Path]:
    """The files of a set on GitHub; one that is there and whole is kept."""
    _kept_revision(wanted, output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(
        output / SOURCE_FILE,
        {"repository": wanted.repository, "revision": wanted.commit, "files": len(wanted.pinned)},
    )
    paths = []
    for number, (name, digest) in enumerate(wanted.pinned, 1):
        path = output / name
        if not path.is_file() or _digest(path, digest) != digest:
            content = _get(f"{GITHUB}/{wanted.repository}/{wanted.commit}/{name}")
            progress(RemoteFile(name, len(content), digest), number, len(wanted.pinned))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
            if _digest(path, digest) != digest:
                path.unlink()
                raise InputError(f"{name} of {wanted.repository} came with another hash: try again later.")
        paths.append(path)
    return paths


def _get(address: str) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(address, timeout=60) as answer:
            content: bytes = answer.read()
            return content
    except (OSError, HTTPException) as error:
        raise InputError(
            f"{address} cannot be fetched ({error}): check the network and run the same command again later."
        ) from None


def check_repository(name: str) -> None:
    """InputError if `name` is not one that a model's repository on the Hub can have."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        raise InputError(f"{name!r} is no repository: write it as USER/NAME.")


def publish(folder: Path, repository: str) -> str:
    """Sends all files of `folder` to the model repository, in one commit; returns the commit's address.

    The repository is made if it is not there: a private one. InputError if the network or the Hub refuses.
    """
    from huggingface_hub import HfApi

    def send() -> str:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        try:
            return str(
                api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of a checkpoint")
            )
        except RuntimeError as error:  # around what befell one file
            raise error.__cause__ or error from None

    later = f"send what is in {folder} later, with: hf upload {repository} {folder}"
    address: str = _online(repository, send, "sent to", later)
    return address


def _online(
    repository: str,
    work: Callable[[], Any],
    what: str = "fetched from",
    later: str = "run the same command again later; what has come is kept",
) -> Any:
    """`work()`, with what can go wrong on the network as an InputError. later: how to do it once that is mended."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    try:
        return work()
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "it may want a login: set HF_TOKEN, and " if status in (401, 403, 404) else ""
        raise InputError(f"{constants.ENDPOINT} answers {status} for {repository}: {hint}{later}.") from None
    except (HTTPError, LocalEntryNotFoundError, EntryNotFoundError, ConnectionError, TimeoutError) as error:
        failed = f"{repository} cannot be {what} {constants.ENDPOINT} ({type(error).__name__})"
        raise InputError(f"{failed}: check the network and {later}.") from None


def _digest(path: Path, like: str) -> str:
    """sha256 of the file, or git's sha1 of it if `like` is one."""
    size = path.stat().st_size
    hasher = hashlib.sha256() if len(like) == 64 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hash_file(path, hasher)
