"""The loss, captions and tokenizer behind the tiny CLIP's weights, against naive references."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports the modules of scripts/tiny_clip by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return lambda name: importlib.import_module(f"tiny_clip.{name}")


def naive_loss(logits: list[list[float]], actions: list[int], generic: list[bool]) -> float:
    """Both directions of the loss, one picture or caption at a time, without matrices."""
    size, total = len(actions), 0.0
    belongs = [[i == j or (actions[i] == actions[j] and generic[j]) for j in range(size)] for i in range(size)]
    unknown = [[actions[i] == actions[j] and not belongs[i][j] for j in range(size)] for i in range(size)]
    for forward in (True, False):
        for i in range(size):
            pairs = [(i, j) if forward else (j, i) for j in range(size)]
            known = [(a, b) for a, b in pairs if not unknown[a][b]]
            norm = math.log(sum(math.exp(logits[a][b]) for a, b in known))
            positives = [logits[a][b] - norm for a, b in known if belongs[a][b]]
            total -= sum(positives) / len(positives) / size / 2
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_the_naive_one(tiny_clip: Any, seed: int) -> None:
    training, rng = tiny_clip("training"), Random(seed)
    actions = [rng.randrange(3) for _ in range(8)]
    generic = [rng.random() < 0.5 for _ in range(8)]
    logits_BB = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)) * 3
    masks = training.masked_targets(torch.tensor(actions), torch.tensor(generic))
    loss = training.contrastive_loss(logits_BB, *masks).item()
    assert loss == pytest.approx(naive_loss(logits_BB.tolist(), actions, generic), rel=1e-5)


def test_training_encodes_text_as_open_clip_does(tiny_clip: Any) -> None:
    model_module, training, captions = tiny_clip("model"), tiny_clip("training"), tiny_clip("captions")
    tokenizer = model_module.build_tokenizer(captions.corpus(Random(0), 300), 500)
    end = tokenizer.token_to_id(model_module.END)
    assert end == tokenizer.get_vocab_size() - 1
    torch.manual_seed(0)
    model = model_module.build_model(model_module.build_config(tokenizer, width=32, layers=1)).eval()
    learner = training.Learner(model, 3)
    ids_BL = torch.zeros(2, model_module.CONTEXT_LENGTH, dtype=torch.long)
    for row, caption in enumerate(("someone running", "a photo of a person reading a book in a park")):
        ids = tokenizer.encode(caption).ids
        ids_BL[row, : len(ids)] = torch.tensor(ids)
    images_BCHW = torch.randn(2, 3, model_module.IMAGE_SIZE, model_module.IMAGE_SIZE)
    with torch.no_grad():
        logits_BB, _ = learner(images_BCHW, ids_BL)
        image_BD, text_BD, scale = model(images_BCHW, ids_BL)
    torch.testing.assert_close(logits_BB, scale * image_BD @ text_BD.T)


def test_the_schedule_warms_up_and_decays(tiny_clip: Any) -> None:
    training = tiny_clip("training")
    recipe = training.Recipe(steps=1000, warmup=10, lr=1.0)
    assert training.learning_rate(0, 0.0, recipe) == pytest.approx(0.1)
    assert training.learning_rate(10, 0.0, recipe) == pytest.approx(1.0)
    assert training.learning_rate(1000, 1.0, recipe) == pytest.approx(0.01)


def test_every_wide_scene_draws_and_has_words(tiny_clip: Any) -> None:
    rendering, captions = tiny_clip("rendering"), tiny_clip("captions")
    assert set(captions.PHRASES) == set(rendering.WIDE_SCENES)
    for index in range(len(rendering.WIDE_SCENES)):
        image, facts = rendering.render(123, index)
        assert image.shape == (rendering.SIZE, rendering.SIZE, 3)
        assert image.std() > 3
        caption = captions.detailed_caption(facts.action, list(facts.people), facts.place, Random(index))
        phrases = captions.PHRASES[facts.action] + captions.LOOSE_PHRASES.get(facts.action, ())
        assert any(phrase in caption for phrase in phrases)


@pytest.mark.parametrize(
    ("colour", "name"),
    [((220, 30, 30), "red"), ((30, 60, 200), "blue"), ((250, 250, 250), "white"), ((20, 20, 24), "black")],
)
def test_colours_have_everyday_names(tiny_clip: Any, colour: tuple[int, int, int], name: str) -> None:
    assert tiny_clip("captions").colour_name(colour) == name
