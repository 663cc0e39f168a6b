"""Class folders' names become words, and words and templates become the sentences that are embedded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_har.errors import ConfigError
from clip_har.prompts import (
    ACTION_TEMPLATES,
    HAR_PHRASES,
    UCF101_TEMPLATES,
    WHOLE_TEMPLATES,
    class_phrase,
    filled,
    resolve_phrases,
    resolve_templates,
    sentences,
)

NAMES = st.text(st.sampled_from("abÄ日 _-\t."), min_size=1)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("running", "running"),
        ("listening_to_music", "listening to music"),
        ("using-laptop", "using laptop"),
        ("Using Laptop", "Using Laptop"),
        ("_calling__someone-", "calling someone"),
        ("日本_語", "日本 語"),
        ("___", "___"),
        ("{}", "{}"),
    ],
)
def test_class_phrases(name: str, phrase: str) -> None:
    assert class_phrase(name) == phrase


@given(NAMES)
def test_a_phrase_is_the_names_words_with_single_spaces(name: str) -> None:
    words = "".join(" " if letter in "_- \t" else letter for letter in name).split()
    assert class_phrase(name) == (" ".join(words) or name)
    assert class_phrase(class_phrase(name)) == class_phrase(name)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_one_sentence_per_template_and_class(names: list[str]) -> None:
    templates = ("a photo of a person {}", "{}: {}")
    for name in names:
        phrase = class_phrase(name)
        assert sentences(name, templates) == [f"a photo of a person {phrase}", f"{phrase}: {phrase}"]


def test_a_class_named_like_a_placeholder_is_filled_in_once() -> None:
    assert sentences("{}{}", ["a {}"]) == ["a {}{}"]


def test_the_default_templates_are_the_seven_historic_ones() -> None:
    assert resolve_templates(()) == ACTION_TEMPLATES
    assert len(set(ACTION_TEMPLATES)) == 7
    assert all(template.count("{}") == 1 for template in ACTION_TEMPLATES)
    assert sentences("using_laptop", ACTION_TEMPLATES)[0] == "a photo of a person using laptop"


def test_sentences_and_files_in_the_order_given(tmp_path: Path) -> None:
    listed = tmp_path / "templates.txt"
    listed.write_bytes("\ufeff# actions\r\n\r\n  a still of {}  \r\n{} — eine Handlung\r\n".encode())
    assert resolve_templates(["first {}", str(listed), "last {}"]) == (
        "first {}",
        "a still of {}",
        "{} — eine Handlung",
        "last {}",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"good {}\na photo\n", "the line 'a photo' has no {}"),
        (b"a {class}\n", "the line 'a {class}' has no {}"),
        (b"\n# only a comment {}\n", "the file is empty"),
        (b"caf\xe9 {}\n", "is not a readable file"),
    ],
)
def test_files_that_are_no_templates_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    listed = tmp_path / "templates.txt"
    listed.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        resolve_templates(["fine {}", str(listed)])
    assert said in str(caught.value) and "a photo of a person {}" in caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["a photo of a person", "", "a\0b", "x" * 5000, "{0}", "."])
def test_values_that_are_neither_sentence_nor_file_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="is not a readable file"):
        resolve_templates([value])


# Phrases


HAR = sorted(HAR_PHRASES)


def test_har_has_a_phrase_of_its_own_for_each_of_its_classes() -> None:
    phrases = resolve_phrases("har", HAR)
    assert list(phrases) == HAR
    assert phrases == dict(HAR_PHRASES)
    assert len(set(phrases.values())) == 15
    assert resolve_phrases("har", ["Using Laptop", "juggling_fire"]) == {
        "Using Laptop": HAR_PHRASES["using_laptop"],
        "juggling_fire": "juggling fire",
    }


def test_phrases_bring_templates_that_take_them_whole() -> None:
    assert resolve_templates((), "har") == WHOLE_TEMPLATES
    assert resolve_templates((), "names") == resolve_templates((), None) == ACTION_TEMPLATES
    assert resolve_templates(("see {}",), "har") == ("see {}",)
    assert filled(HAR_PHRASES["hugging"], WHOLE_TEMPLATES)[0] == "a photo of two people hugging"


def test_phrases_come_from_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "phrases.json"
    path.write_text('{"Running": "a  person running fast"}')
    assert resolve_phrases(str(path), ["running", "eating"]) == {
        "running": "a person running fast",
        "eating": "eating",
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "is not a JSON object"),
        ("{", "is neither names, har nor a readable JSON file"),
        ('{"running": ""}', "the class 'running' has no description"),
        ('{"swimming": "a swimmer"}', "describes none of the classes"),
    ],
)
def test_phrases_that_cannot_be_used_are_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        resolve_phrases(str(path), ["running", "eating"])
    assert said in str(caught.value)


def test_ucf101_has_clips_48_templates() -> None:
    assert len(set(UCF101_TEMPLATES)) == 48
    assert "a demonstration of the person practicing {}." in UCF101_TEMPLATES
    assert "a photo of a person {}." in UCF101_TEMPLATES
