"""CoOp: the learned context against a naive text tower, on open_clip's own towers and on a Hugging Face one."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from clip_har.backbone import Backbone, load_backbone
from clip_har.methods.base import Batch, ClassifierContext, Task
from clip_har.methods.coop import CONTEXT_VECTORS, CoOp, PromptLearner, context_tokens
from clip_har.methods.labelled_images import LabelledImages
from samples import MODEL_CONFIG, write_model
from tasks import Table, given, settings

CLASSES = ("running", "playing_guitar", "drinking")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x", "a", "photo", "of", "person", ".", "running", "playing"]
WORDS += ["guitar", "drinking", "someone"]
NO_CAUSAL_MASK: dict[str, Any] = {
    **MODEL_CONFIG,
    "model_cfg": {
        **MODEL_CONFIG["model_cfg"],
        "text_cfg": {**MODEL_CONFIG["model_cfg"]["text_cfg"], "no_causal_mask": True},
    },
}
COCA_TEXT: dict[str, Any] = {
    **MODEL_CONFIG,
    "model_cfg": {
        **MODEL_CONFIG["model_cfg"],
        "text_cfg": {**MODEL_CONFIG["model_cfg"]["text_cfg"], "embed_cls": True},
        "custom_text": True,
    },
}


def write_tokenizer(folder: Path) -> None:
    """One token per word of `WORDS`, between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)


def write_bert_model(folder: Path) -> str:
    """A tiny random model with a BERT text tower and a vocabulary of its own; returns its name."""
    text = folder / "text"
    text.mkdir(parents=True)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = {"model_type": "bert", "vocab_size": len(WORDS), "max_position_embeddings": 32, "pad_token_id": 0, **sizes}
    (text / "config.json").write_text(json.dumps(bert))
    write_tokenizer(folder)  # open_clip reads it there
    text_config = {
        "hf_model_name": str(text),
        "hf_tokenizer_name": str(text),
        "hf_pooler_type": "mean_pooler",
        "hf_model_pretrained": False,
        "hf_proj_type": "linear",
        "context_length": 32,
    }
    config = {**MODEL_CONFIG, "model_cfg": {**MODEL_CONFIG["model_cfg"], "text_cfg": text_config}}
    return write_model(folder, config, seed=0)


@pytest.fixture(scope="module")
def bert_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_bert_model(tmp_path_factory.mktemp("bert-clip"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Towers this small lose far more to threads than they gain, on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def open_model(name: str) -> Backbone:
    return load_backbone(name, device="cpu", precision="float32")


@functools.cache
def make_task(model: str) -> Task:
    """Image embeddings of which another context than the usual words tells the classes."""
    backbone = open_model(model)
    prompts_CD = backbone.encode_text([f"a photo of a person {name.replace('_', ' ')}." for name in CLASSES])
    frame = ClassifierContext(
        classes=CLASSES,
        templates=("a photo of a person {}.",),
        prompts_CD=prompts_CD,
        logit_scale=backbone.info.logit_scale,
        load_backbone=lambda: open_model(model),
    )
    generator = torch.Generator().manual_seed(5)
    teacher = PromptLearner(frame, generator)
    with torch.no_grad():
        teacher.context_MW.normal_(generator=generator)
        taught_CD = teacher.class_embeddings()
    centres_CD = F.normalize(taught_CD - taught_CD.mean(dim=0), dim=-1)

    def split(count: int) -> LabelledImages:
        labels_N = torch.arange(len(CLASSES)).repeat_interleave(count)
        noise_ND = torch.randn(len(labels_N), prompts_CD.shape[1], generator=generator) * 0.4
        embedding_ND = F.normalize(centres_CD[labels_N] + noise_ND, dim=-1)
        return LabelledImages(table=Table(embedding_ND, embedding_ND), labels_N=labels_N)  # type: ignore[arg-type]

    return Task(
        classes=frame.classes,
        templates=frame.templates,
        prompts_CD=prompts_CD,
        captions_CTD=prompts_CD[:, None],
        logit_scale=frame.logit_scale,
        load_backbone=frame.load_backbone,
        train=split(20),
        val=split(20),
        seed=0,
    )


def step_through(method: CoOp, classifier: PromptLearner, task: Task, *, epochs: int) -> list[float]:
    """Plain AdamW over the whole training set; the loss before each step."""
    optimizer = torch.optim.AdamW(method.parameter_groups(classifier))
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = method.loss(classifier, Batch.of(task.train.table.embedding, task.train.labels_N), task)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def naive_class_embeddings(model: Any, tokens_CL: Tensor, start: int, context_MW: Tensor) -> Tensor:
    """open_clip's own text tower, written out, with the context in the place of the placeholders' vectors."""
    rows = []
    for tokens_L in tokens_CL:
        vectors_LW = model.token_embedding.weight[tokens_L].clone()
        vectors_LW[start : start + len(context_MW)] = context_MW
        hidden_1LW = model.transformer((vectors_LW + model.positional_embedding)[None], attn_mask=model.attn_mask)
        end = int(tokens_L.argmax())
        rows.append(model.ln_final(hidden_1LW)[0, end] @ model.text_projection)
    return F.normalize(torch.stack(rows), dim=-1)


def test_the_hook_equals_a_tower_written_out(tiny_model: str) -> None:
    task = make_task(tiny_model)
    classifier = CoOp(settings()).build(task)
    backbone = open_model(tiny_model)
    tokens_CL, start, count = context_tokens(backbone.tokenizer, CLASSES)
    assert tokens_CL.shape[1] == 16
    assert count == len(classifier.context_MW)
    with torch.no_grad():
        classifier.context_MW.normal_(generator=torch.Generator().manual_seed(3))
        expected_CD = naive_class_embeddings(backbone.model, tokens_CL, start, classifier.context_MW)
        torch.testing.assert_close(classifier.class_embeddings(), expected_CD)


def test_the_words_themselves_as_context_give_the_sentence(bert_model: str) -> None:
    """With a Hugging Face tower: the vectors of "a photo of a person" in the context answer as those words do."""
    backbone = open_model(bert_model)
    classifier = CoOp(settings()).build(make_task(bert_model))
    words = ["someone"] * (len(classifier.context_MW) - 5) + ["a", "photo", "of", "a", "person"]
    text: Any = backbone.model.text
    table_VW = text.transformer.get_input_embeddings().weight
    torch.testing.assert_close(classifier.context_MW[-5:], table_VW[[WORDS.index(word) for word in words[-5:]]])
    with torch.no_grad():
        classifier.context_MW.copy_(table_VW[[WORDS.index(word) for word in words]])
        embedding_CD = classifier.class_embeddings()
    sentences = [" ".join(words) + f" {name.replace('_', ' ')}." for name in CLASSES]
    torch.testing.assert_close(embedding_CD, backbone.encode_text(sentences))


@pytest.mark.parametrize("config", [NO_CAUSAL_MASK, COCA_TEXT], ids=["bidirectional", "class token"])
def test_towers_that_see_the_padding_get_the_whole_context(config: dict[str, Any], tmp_path: Path) -> None:
    """The placeholder's own vectors in the context must give the model's own answer for the same tokens."""
    backbone = open_model(write_model(tmp_path, config, seed=0))
    classifier = PromptLearner(make_task(f"local-dir:{tmp_path}"), torch.Generator())
    tokens_CL, start, count = context_tokens(backbone.tokenizer, CLASSES)
    holder: Any = getattr(backbone.model, "text", backbone.model)
    with torch.no_grad():
        classifier.context_MW.copy_(holder.token_embedding(tokens_CL[0, start : start + count]))
        encoded: Any = backbone.model.encode_text(tokens_CL)  # type: ignore[operator]
    torch.testing.assert_close(classifier.class_embeddings(), F.normalize(encoded, dim=-1))


def test_the_context_is_as_long_as_the_class_names_allow(tiny_model: str, bert_model: str) -> None:
    tokenizer = open_model(tiny_model).tokenizer
    for classes in (CLASSES, ("running", "standing beside a very tall old wooden fence")):
        tokens_CL, start, count = context_tokens(tokenizer, classes)
        plain_CL = tokenizer([f"{name.replace('_', ' ')}." for name in classes])
        assert start == 1
        assert 1 <= count < CONTEXT_VECTORS
        for tokens_L, plain_L in zip(tokens_CL.tolist(), plain_CL.tolist(), strict=True):
            name_and_end = [token for token in plain_L[1:] if token]
            assert tokens_L[1 + count : 1 + count + len(name_and_end)] == name_and_end, "a class name was cut off"
    assert context_tokens(open_model(bert_model).tokenizer, CLASSES)[2] == CONTEXT_VECTORS


def test_a_class_name_too_long_for_the_tower_still_leaves_a_context(tiny_model: str) -> None:
    _, _, count = context_tokens(open_model(tiny_model).tokenizer, ("running " * 40,))
    assert count == 1


@pytest.mark.parametrize("model", ["tiny_model", "bert_model"])
def test_it_learns_beats_zero_shot_and_restores_exactly(model: str, request: pytest.FixtureRequest) -> None:
    task = make_task(request.getfixturevalue(model))
    method = CoOp(settings(lr=0.02))
    classifier = method.build(task)
    first, *_, last = step_through(method, classifier, task, epochs=40)
    assert last < 0.2 * first
    zero_shot_N = (task.val.table.embedding @ task.prompts_CD.T).argmax(dim=1)
    answers_N = classifier.probabilities(task.val).argmax(dim=1)
    before, after = ((answer_N == task.val.labels_N).float().mean() for answer_N in (zero_shot_N, answers_N))
    assert after >= before + 0.1
    restored = method.restore(task, method.tensors(classifier))
    torch.testing.assert_close(restored.probabilities(task.val), classifier.probabilities(task.val), rtol=0, atol=0)
    with pytest.raises((KeyError, RuntimeError)):
        method.restore(task, {})


def test_the_context_alone_is_trained_and_saved(tiny_model: str) -> None:
    task = make_task(tiny_model)
    method = CoOp(settings())
    classifier = method.build(task)
    (model,) = classifier._held
    frozen = {key: value.clone() for key, value in model.state_dict().items()}
    step_through(method, classifier, task, epochs=1)
    assert classifier.context_MW.grad is not None
    assert (classifier.context_MW.grad.norm(dim=1) > 0).all(), "a context vector does not reach the answer"
    assert set(classifier.state_dict()) == set(method.tensors(classifier)) == {"context_MW"}
    assert method.trainable_params(classifier) == classifier.context_MW.numel()
    assert all(torch.equal(value, frozen[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules()), "the hook must not stay"


def test_an_evaluation_embeds_the_classes_once(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(tiny_model)
    classifier = CoOp(settings()).build(task)
    calls = []
    embed = classifier.class_embeddings
    monkeypatch.setattr(classifier, "class_embeddings", lambda: calls.append(1) or embed())  # type: ignore[func-returns-value]
    before_NC = classifier.probabilities(task.val, chunk=4)
    assert len(calls) == 1
    with torch.no_grad():
        classifier.context_MW.add_(1.0)
    assert not torch.equal(classifier.probabilities(task.val), before_NC), "stale class embeddings"
    classifier.train()
    classifier(task.val.table.embedding)
    assert len(calls) == 3, "training must not use what an evaluation kept"


def test_the_tower_follows_to_another_type(tiny_model: str) -> None:
    classifier = CoOp(settings()).build(make_task(tiny_model)).double()
    assert classifier._held[0].token_embedding.weight.dtype == torch.float64  # type: ignore[union-attr]
    assert torch.isfinite(classifier.class_embeddings()).all()


def test_the_seed_draws_the_context(tiny_model: str) -> None:
    task = make_task(tiny_model)
    method = CoOp(settings())
    first_MW, again_MW = method.build(task).context_MW, method.build(task).context_MW
    assert torch.equal(first_MW, again_MW)
    assert not torch.equal(first_MW, method.build(dataclasses.replace(task, seed=1)).context_MW)


def test_the_learning_rate_follows_the_towers_word_vectors(tiny_model: str) -> None:
    backbone = open_model(tiny_model)
    before = CoOp.defaults(given(), backbone).optimizer.lr
    backbone.model.token_embedding.weight.data.mul_(10)  # type: ignore[union-attr, operator]
    assert CoOp.defaults(given(), backbone).optimizer.lr == pytest.approx(10 * before)


def test_golden_loss_trace(bert_model: str) -> None:
    task = make_task(bert_model)
    method = CoOp(settings(lr=0.01))
    losses = step_through(method, method.build(task), task, epochs=3)
    assert losses == pytest.approx([0.847711, 0.768663, 0.697020], rel=1e-3)
