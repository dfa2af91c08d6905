"""Upstream's checkpoints -> weights of ours: Saint Iberis', and those of nanochat before its model changed.

    d20/model_021400.pt     a pickled state dict: names as ours, embedding in bf16, perhaps each after `_orig_mod.`
    d20/meta_021400.json    model_config: the sizes, without n_kernel and slc_rate in those of base and mid training
    tokenizer/tokenizer.pkl

* A pickle can run any program. torch reads this one with `weights_only=True`, and there is no second try.
* The weights say which layers are attention and how wide convolution and MLP are. That the English and the
  Japanese-English model differ by a norm inside SLC2 they don't say: MLP and heads tell one from the other.
* The metadata of base training name its depth; those of the later stages, in which conversations are learned, don't.
* nanochat from October 2025 to 11 January 2026 is Saint Iberis with attention in every layer, to the sign of the
  rotation. What it has got since is refused by its name.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.config import ModelConfig, Recipe
from megatron_iberis.config.checks import check_bounds
from megatron_iberis.convert.names import check_names
from megatron_iberis.convert.published import published_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.storage.refusals import check_new
from megatron_iberis.tokenizer import Tokenizer, import_nanochat
from megatron_iberis.tokenizer.nanochat import PICKLE_FILE

Variant = Literal["en", "jp"]
Stage = Literal["base", "chat"]
Weights = dict[str, torch.Tensor]

_LARGEST_META = 10_000_000  # bytes; upstream's are below 2,000
_SIZES = {"sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"}
_OPTIONAL = {"n_kernel", "slc_rate", "window_pattern"}

# What newer nanochats have, by the names of weights that only it has.
_FEATURES = {
    "smear": r"smear_(gate|lambda)\b",
    "backout": r"backout_lambda\b",
    "value embeddings": r"value_embeds\.|.*\bve_gate\.",
    "learned scales of the residual stream (resid_lambdas)": r"resid_lambdas\b",
    "the embedding blended into every layer (x0_lambdas)": r"x0_lambdas\b",
}


@dataclass(frozen=True)
class NanochatModel:
    """A model as upstream saved it, in our terms."""

    config: ModelConfig
    weights: Weights
    """By canonical name, in the types in which they are stored; read from the disk when they are used."""
    step: int
    tokenizer: Tokenizer
    stage: Stage
    path: Path
    """The file of its weights."""

    @property
    def recipe(self) -> Recipe:
        """The published recipe of the variant at this model's sizes; it names no data."""
        published = published_recipe(self.config)
        return replace(published, run=replace(published.run, stage=self.stage))

    def silent_layers(self) -> list[int]:
        """The SLC2 layers that add nothing: upstream leaves the convolution as it finds the memory, zeros perhaps."""
        parts = ("conv1d", "c_proj")
        slc2 = [layer for layer in range(self.config.depth) if not self.config.is_attention(layer)]
        return [
            layer
            for layer in slc2
            if not all(self.weights[f"transformer.h.{layer}.attn.{part}.weight"].any() for part in parts)
        ]


def read_nanochat(
    folder: str | Path,
    step: int | None = None,
    variant: Variant | None = None,
    tokenizer: str | Path | None = None,
) -> NanochatModel:
    """The model in a folder of upstream's, or in one of its files model_*.pt.

    step: which of several; the last one by default. variant: English or Japanese-English, where the sizes do not say.
    tokenizer: tokenizer.pkl or its folder, where it does not lie beside. Raises InputError when there is none, it is
    damaged, would run something, or is not Saint Iberis.
    """
    path = _model_file(Path(folder), step)
    sizes, stage = _metadata(path.with_name(path.name.replace("model_", "meta_")).with_suffix(".json"))
    weights = _read_weights(path)
    _refuse_newer(path, weights, sizes)
    weights = _without_padding(weights, sizes["vocab_size"])
    config = _config(path, sizes, weights, variant)
    _check_weights(path, weights, config)
    found = import_nanochat(_tokenizer_file(path, tokenizer))
    if found.vocab_size != config.vocab_size:
        raise InputError(
            f"the tokenizer has {found.vocab_size:,} ids and the model in {path} {config.vocab_size:,}: name the one "
            "that it was trained with (--tokenizer PATH)."
        )
    return NanochatModel(config, weights, _step_of(path), found, stage, path)


def convert_from_nanochat(
    folder: str | Path,
    output: str | Path,
    step: int | None = None,
    variant: Variant | None = None,
    tokenizer: str | Path | None = None,
) -> NanochatModel:
    """Writes a folder of weights (checkpoint/weights_only.py) of upstream's checkpoint, and returns what was read.

    As `read_nanochat`. Raises InputError when the output is there already or cannot be written.
    """
    check_new(output)
    model = read_nanochat(folder, step, variant, tokenizer)
    save_weights(output, model.recipe, model.tokenizer, model.weights, model.step, f"nanochat's {model.path.name}")
    return model


# Where things lie


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("model_"))


def _model_file(place: Path, step: int | None) -> Path:
    if place.is_file() and re.fullmatch(r"model_\d+\.pt", place.name):
        return place
    if not place.is_dir():
        raise InputError(f"{place} is no folder of nanochat's: name the one that holds model_*.pt and meta_*.json.")
    files = sorted((p for p in place.glob("model_*.pt") if re.fullmatch(r"model_\d+\.pt", p.name)), key=_step_of)
    if not files:
        inner = sorted({p.parent.name for p in place.glob("*/model_*.pt")})
        name = f"name one of the folders in it ({', '.join(inner)})" if inner else "name the folder that holds one"
        raise InputError(f"{place} holds no model_*.pt: {name}.")
    if step is None:
        return files[-1]
    found = next((path for path in files if _step_of(path) == step), None)
    if found is None:
        steps = ", ".join(str(_step_of(path)) for path in files)
        raise InputError(f"{place} holds no model of step {step}: there is one of {steps}.")
    return found


def _tokenizer_file(model: Path, given: str | Path | None) -> Path:
    """What was named, or what lies beside the model: upstream's d20/ and tokenizer/ are two folders apart."""
    if given is not None:
        return Path(given)
    folder = model.absolute().parent
    places = [folder, *(place / "tokenizer" for place in (folder, *folder.parents[:2]))]
    found = next((place / PICKLE_FILE for place in places if (place / PICKLE_FILE).is_file()), None)
    if found is None:
        raise InputError(f"there is no {PICKLE_FILE} beside {model}: name it (--tokenizer PATH).")
    return found


# What the files say


def _metadata(path: Path) -> tuple[dict[str, Any], Stage]:
    """The sizes in a file of metadata, and what the training that wrote it was for."""
    try:
        if path.stat().st_size > _LARGEST_META:
            raise ValueError
        said = json.loads(path.read_text(encoding="utf-8"))
        sizes, given = said["model_config"], said.get("user_config", {})
        if not isinstance(sizes, dict) or not isinstance(given, dict):
            raise ValueError
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: copy it beside the model, for it says how many heads there are."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} is not the metadata that nanochat wrote: copy the file again.") from None
    unknown, missing = sorted(sizes.keys() - _SIZES - _OPTIONAL), sorted(_SIZES - sizes.keys())
    if unknown:
        raise InputError(f"{path} gives a model {unknown[0]}, which Saint Iberis has not: it is another model.")
    if missing:
        raise InputError(f"{path} does not say {missing[0]}: copy the file again.")
    for name in (_SIZES | _OPTIONAL - {"window_pattern"}) & sizes.keys():
        if type(sizes[name]) is not int or not 0 < sizes[name] < 2**31:
            raise InputError(f"{path} gives {name} as {sizes[name]!r}: copy the file again.")
    return sizes, "base" if "depth" in given else "chat"


def _read_weights(path: Path) -> Weights:
    """The tensors of a state dict, without running anything that the file may hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it is damaged")
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = {name.removeprefix("_orig_mod."): _checked(name, tensor) for name, tensor in found.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): name nanochat's file.") from None
    except Exception as error:  # whatever a made-up file leads to
        raise InputError(
            f"{path} is not a file of weights that nanochat wrote ({_reason(error)}): nothing of it was run."
        ) from None
    return weights


def _checked(name: str, tensor: Any) -> torch.Tensor:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        raise ValueError(f"{name} is no tensor")
    if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16) or tensor.is_meta:
        raise ValueError(f"{name} holds no numbers of a weight")
    if not tensor.is_contiguous():  # a few bytes may pose as a tensor of any size
        raise ValueError(f"{name} does not lie in one piece")
    return tensor.detach()


def _reason(error: Exception) -> str:
    """In a few words; torch's own text advises to run the file."""
    text = str(error)
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it would load {named[1]}"
    if isinstance(error, ValueError) and "\n" not in text and len(text) < 200:
        return text
    return "it holds something else"


# Which model it is


def _refuse_newer(path: Path, names: Iterable[str], sizes: Mapping[str, Any]) -> None:
    """InputError that names what a newer nanochat's model has and Saint Iberis has not."""
    names = list(names)
    found = [feature for feature, form in _FEATURES.items() if any(re.match(form, name) for name in names)]
    window = sizes.get("window_pattern", "L")
    if not isinstance(window, str) or set(window.upper()) != {"L"}:
        found.append(f"sliding windows (window_pattern {window})")
    if found:
        raise InputError(
            f"{path} is of a newer nanochat, with what Saint Iberis has not: {'; '.join(found)}. Models that "
            "nanochat made before 11 January 2026 can be converted."
        )


def _without_padding(weights: Weights, vocab_size: int) -> Weights:
    """nanochat filled the vocabulary up to a multiple of 64 for a while: nothing reads or writes the ids added."""
    padded = math.ceil(vocab_size / 64) * 64
    ends = {"transformer.wte.weight", "lm_head.weight"}
    return {n: w[:vocab_size] if n in ends and w.ndim and w.shape[0] == padded else w for n, w in weights.items()}


def _config(path: Path, sizes: Mapping[str, Any], weights: Weights, variant: Variant | None) -> ModelConfig:
    """The model's sizes, of which the metadata says some and the weights the others."""
    depth, width, heads = sizes["n_layer"], sizes["n_embd"], sizes["n_head"]
    ends = weights.get("transformer.wte.weight"), weights.get("transformer.h.0.mlp.c_fc.weight")
    embedding, mlp = (list(w.shape) if w is not None and w.ndim == 2 else None for w in ends)
    if depth > len(weights) or not embedding or not mlp:
        raise InputError(f"{path} has {len(weights)} weights, and lacks some of a model of {depth:,} layers.")
    if embedding != [sizes["vocab_size"], width]:
        raise InputError(
            f"the metadata of {path} give a width of {width:,} and {sizes['vocab_size']:,} ids, and its embedding is "
            f"of shape {embedding}: copy both files again."
        )
    attention = [layer for layer in range(depth) if f"transformer.h.{layer}.attn.c_q.weight" in weights]
    kernels = {w.shape[-1] for name, w in weights.items() if name.endswith(".attn.conv1d.weight") and w.ndim == 3}
    hidden = mlp[0]
    config = ModelConfig(
        depth=depth,
        width=width,
        heads=heads,
        kv_heads=sizes["n_kv_head"],
        mlp_ratio=hidden / width,
        mlp_hidden=hidden,
        slc_rate=_slc_rate(path, sizes.get("slc_rate", 3), depth, attention),
        kernel=min(kernels, default=sizes.get("n_kernel", 3)),
        inner_norm=len(attention) < depth and _variant(path, variant, width, heads, hidden) == "jp",
        vocab_size=sizes["vocab_size"],
        sequence_length=sizes["sequence_len"],
    ).resolved()
    check_bounds("model", config)
    config.check()
    return config


def _slc_rate(path: Path, told: int, depth: int, attention: list[int]) -> int:
    """The rate by which these layers are attention, preferably the one that is told.

    Not always that one: a rate of 1 leaves upstream attention in the last layer alone, and ours in every layer.
    """
    for rate in (told, *range(1, depth + 1)):
        if ModelConfig(depth=depth, slc_rate=rate).attention_layers == attention:
            return rate
    layers = ", ".join(map(str, attention)) or "none"
    raise InputError(f"{path} has attention in these of its {depth} layers: {layers}; no model.slc_rate gives that.")


def _variant(path: Path, given: Variant | None, width: int, heads: int, hidden: int) -> Variant:
    """English (MLP 4 E, heads of 128) or Japanese-English (5.5 E, heads of 64, norm inside SLC2)."""
    if given:
        return given
    by_mlp = {4 * width: "en", int(5.5 * width): "jp"}.get(hidden)
    rules = {"en": math.ceil(width / 128), "jp": math.ceil(width / 64)}
    by_heads = {variant for variant, count in rules.items() if count == heads}
    if by_mlp == "en" and by_heads != {"jp"}:
        return "en"
    if by_mlp == "jp" and by_heads != {"en"}:
        return "jp"
    raise InputError(
        f"the sizes in {path} (width {width}, MLP {hidden}, {heads} heads) are neither the English model's nor the "
        "Japanese-English one's: say by which code it was trained (--variant en, or --variant jp, which has a norm "
        "inside SLC2)."
    )


def _check_weights(path: Path, weights: Weights, config: ModelConfig) -> None:
    """InputError unless these are all weights of that model, and numbers."""
    check_names({name: tuple(tensor.shape) for name, tensor in weights.items()}, config, path)
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise InputError(f"{path} has numbers in {name} that are not finite: take the model of an earlier step.")
