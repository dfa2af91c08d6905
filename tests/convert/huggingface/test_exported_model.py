"""The exported model in transformers' hands gives what the reference implementation gives, however it is called.

The same tests run on the lowest version of transformers that is supported (test_lowest_transformers.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, DynamicCache, Trainer, TrainingArguments, pipeline

from megatron_iberis.convert.exported import read_export
from megatron_iberis.model.reference import ReferenceIberis

from .conftest import MODEL, likeliest, load, logits_of

ENDS = (5, 1)  # <|assistant_end|> and <|bos|>
PROMPTS = [[9], [7, 300], [1, 11, 60, 2, 5, 40, 41], list(range(20, 37))]
CLOSE = {"rtol": 0, "atol": 1e-4}


def padded(rows: list[list[int]], left: bool) -> dict[str, torch.Tensor]:
    length = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, rows: list[list[int]], **settings: Any) -> list[list[int]]:
    """What is added to each row, without the padding after its end."""
    inputs = padded(rows, left=True)
    out = model.generate(**inputs, **{"max_new_tokens": 12, "do_sample": False, **settings})
    added = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: min([row.index(end) + 1 for end in ENDS if end in row], default=len(row))] for row in added]


@torch.no_grad()
def forward(model: Any, **inputs: Any) -> Any:
    return model(**inputs)


def test_greedy_text_is_the_references(model: Any, reference: ReferenceIberis) -> None:
    for prompt in PROMPTS:
        assert generate(model, [prompt]) == [likeliest(reference, prompt, 12, ENDS)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_cache": False},
        {"prefill_chunk_size": 3},
        {"prefill_chunk_size": 1},
        {"num_beams": 1, "repetition_penalty": 1.0},
        {"cache_implementation": "static"},
    ],
    ids=str,
)
def test_greedy_text_of_a_padded_batch_is_the_references(
    model: Any, reference: ReferenceIberis, settings: dict[str, Any]
) -> None:
    assert generate(model, PROMPTS, **settings) == [likeliest(reference, row, 12, ENDS) for row in PROMPTS]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("rows", [PROMPTS, PROMPTS[2:3]], ids=["batch", "one row"])
def test_padding_changes_nothing(model: Any, reference: ReferenceIberis, rows: list[list[int]], left: bool) -> None:
    inputs = padded(rows, left)
    if len(rows) == 1:
        more = (4, 0) if left else (0, 4)
        inputs = {name: torch.nn.functional.pad(tensor, more) for name, tensor in inputs.items()}
    logits = forward(model, **inputs).logits
    for i, row in enumerate(rows):
        found = logits[i][inputs["attention_mask"][i] == 1]
        torch.testing.assert_close(found, logits_of(reference, row), **CLOSE)


@pytest.mark.parametrize("added", [1, 2, 4])
@pytest.mark.parametrize("left", [True, False])
def test_a_second_turn_goes_on_from_the_cache(model: Any, reference: ReferenceIberis, added: int, left: bool) -> None:
    rows = [[3, 8], [3, 8, 4, 9, 10], [30]]
    turns = [[50], [51, 52, 53, 54], [55, 56]]
    first = padded(rows, left)
    second = padded([turn[:added] for turn in turns], left)
    cache = DynamicCache(config=model.config)
    forward(model, **first, past_key_values=cache)
    mask = torch.cat((first["attention_mask"], second["attention_mask"]), dim=1)
    logits = forward(model, input_ids=second["input_ids"], attention_mask=mask, past_key_values=cache).logits
    for i, (row, turn) in enumerate(zip(rows, turns, strict=True)):
        found = logits[i][second["attention_mask"][i] == 1]
        wanted = logits_of(reference, row + turn[:added])[len(row) :]
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_any_pieces_of_a_prompt_give_the_same(model: Any, reference: ReferenceIberis) -> None:
    ids = list(range(40, 60))
    wanted = logits_of(reference, ids)
    for sizes in ([1] * 20, [2] * 10, [1, 2, 3, 14], [19, 1], [3, 17]):
        cache, logits = DynamicCache(config=model.config), []
        for piece in torch.tensor([ids]).split(sizes, dim=1):
            logits.append(forward(model, input_ids=piece, past_key_values=cache).logits)
        torch.testing.assert_close(torch.cat(logits, dim=1)[0], wanted, **CLOSE)


def test_samples_of_one_prompt_have_the_references_distributions(model: Any, reference: ReferenceIberis) -> None:
    torch.manual_seed(0)
    inputs = padded([PROMPTS[1], PROMPTS[2]], left=True)
    out = model.generate(
        **inputs,
        do_sample=True,
        num_return_sequences=3,
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_logits=True,
    )
    start = inputs["input_ids"].shape[1]
    assert len({tuple(row.tolist()) for row in out.sequences}) > 3
    for i, row in enumerate(out.sequences):
        prompt = PROMPTS[1 + i // 3]
        wanted = logits_of(reference, prompt + row[start:].tolist())
        for step, logits in enumerate(out.logits):
            torch.testing.assert_close(logits[i], wanted[len(prompt) - 1 + step], **CLOSE)
            if row[start + step] in ENDS:
                break


def test_beams_are_those_of_a_run_without_a_cache(model: Any, reference: ReferenceIberis) -> None:
    settings = {"num_beams": 3, "max_new_tokens": 10, "return_dict_in_generate": True, "output_scores": True}
    inputs = padded(PROMPTS[1:], left=True)
    cached = model.generate(**inputs, **settings, do_sample=False)
    plain = model.generate(**inputs, **settings, do_sample=False, use_cache=False)
    assert cached.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(cached.sequences_scores, plain.sequences_scores, **CLOSE)
    start = inputs["input_ids"].shape[1]
    added = [id for id in cached.sequences[0, start:].tolist() if id]
    likelihood = logits_of(reference, PROMPTS[1] + added).log_softmax(-1)
    score = sum(float(likelihood[len(PROMPTS[1]) - 1 + i, id]) for i, id in enumerate(added))
    assert float(cached.sequences_scores[0]) == pytest.approx(score / len(added), abs=1e-4)


def test_looked_up_drafts_do_not_change_the_text(model: Any, reference: ReferenceIberis) -> None:
    prompt = [8, 9, 10, 8, 9, 10, 8, 9]
    assert generate(model, [prompt], prompt_lookup_num_tokens=3) == [likeliest(reference, prompt, 12, ENDS)]


def test_what_may_be_asked_of_the_forward_pass(model: Any, reference: ReferenceIberis) -> None:
    ids = torch.tensor([PROMPTS[3]])
    whole = forward(model, input_ids=ids, output_hidden_states=True)
    torch.testing.assert_close(whole.logits[0], logits_of(reference, PROMPTS[3]), **CLOSE)
    assert len(whole.hidden_states) == MODEL.depth + 1
    for kept, wanted in ((2, whole.logits[:, -2:]), (torch.tensor([0, 3]), whole.logits[:, [0, 3]])):
        torch.testing.assert_close(forward(model, input_ids=ids, logits_to_keep=kept).logits, wanted, **CLOSE)
    embedded = model.get_input_embeddings()(ids)
    torch.testing.assert_close(forward(model, inputs_embeds=embedded).logits, whole.logits, **CLOSE)
    assert torch.equal(forward(model, input_ids=ids, return_dict=False)[0], whole.logits)
    eager = load(Path(model.config._name_or_path), attn_implementation="eager")
    torch.testing.assert_close(forward(eager, **padded(PROMPTS, True)).logits[3], whole.logits[0], **CLOSE)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        forward(model, input_ids=ids, inputs_embeds=embedded)


def test_there_are_no_buffers_and_no_claims_that_do_not_hold(model: Any) -> None:
    assert not list(model.buffers())
    assert model._supports_attention_backend is False
    assert model._supports_sdpa is True
    assert model.config.tie_word_embeddings is False
    assert model.lm_head.weight is not model.transformer.wte.weight
    assert "mamba" not in type(model).__name__.lower()
    assert not type(model).is_backend_compatible()


def test_in_bf16_the_likeliest_token_is_the_same_or_nearly_as_likely(
    exported: Path, reference: ReferenceIberis
) -> None:
    half = load(exported, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    logits = forward(half, **padded(PROMPTS, True)).logits
    assert logits.dtype == torch.float32
    for row, found in zip(PROMPTS, logits, strict=True):
        wanted = logits_of(reference, row)
        torch.testing.assert_close(found[-len(row) :], wanted, rtol=0, atol=0.5)
        assert float(wanted[-1].max() - wanted[-1, int(found[-1].argmax())]) < 0.5
    assert len(generate(half, PROMPTS)) == len(PROMPTS)


def test_it_is_saved_and_loaded_again_with_its_code(model: Any, theirs: Any, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    model.save_pretrained(folder)
    theirs.save_pretrained(folder)
    assert (folder / "modeling_iberis.py").is_file()
    assert (folder / "chat_template.jinja").is_file()
    again = load(folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    inputs = padded(PROMPTS, True)
    assert torch.equal(forward(again, **inputs).logits, forward(model, **inputs).logits)
    assert again.generation_config.eos_token_id == list(ENDS)
    assert read_export(folder).config == read_export(exported).config  # what from-hf makes of it


def test_a_pipeline_continues_text_and_answers(model: Any, theirs: Any, reference: ReferenceIberis) -> None:
    pipe = pipeline("text-generation", model=model, tokenizer=theirs)
    settings = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    prompts = ["The ferry", "朝の港では、", "x"]
    for prompt, found in zip(prompts, pipe(prompts, batch_size=3, **settings), strict=True):
        added = likeliest(reference, theirs(prompt)["input_ids"], 6, ENDS)
        assert found[0]["generated_text"] == theirs.decode(added, skip_special_tokens=True)
    chat = [{"role": "user", "content": "Is there soup?"}]
    ids = theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    said = pipe(chat, **settings)[0]["generated_text"]
    assert said == theirs.decode(likeliest(reference, ids, 6, ENDS), skip_special_tokens=True)


# Training it further


def losses_and_gradients(model: Any, labels: torch.Tensor, **inputs: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_loss_and_gradients_are_the_references(exported: Path, reference: ReferenceIberis) -> None:
    model = load(exported).train()
    inputs = padded(PROMPTS[2:], left=False)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    reference.zero_grad()
    count = sum(len(row) - 1 for row in PROMPTS[2:])
    loss = sum(reference(torch.tensor([row[:-1]]), torch.tensor([row[1:]])) for row in PROMPTS[2:]) / count
    loss.backward()
    wanted = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        found, gradients = losses_and_gradients(model, labels, **inputs)
        assert found == pytest.approx(loss.item(), abs=1e-5)
        assert gradients.keys() == wanted.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=0, atol=1e-5, msg=name)
    with torch.no_grad():  # text from a model in training goes on from its cache as ever
        assert generate(model, PROMPTS) == [likeliest(reference, row, 12, ENDS) for row in PROMPTS]


def test_a_trainer_takes_a_step(exported: Path, theirs: Any, tmp_path: Path) -> None:
    model = load(exported)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        gradient_checkpointing=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = [theirs(text) for text in ("The ferry leaves.", "朝の港", "x", "a b c")]
    collator = DataCollatorForLanguageModeling(theirs, mlm=False)
    trained = Trainer(model, settings, train_dataset=rows, data_collator=collator).train()
    assert 3 < trained.training_loss < 30
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(moved) == len(before)
