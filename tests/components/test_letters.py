"""What is said of a text in a few numbers."""

from __future__ import annotations

import numpy as np
import pytest

from components import letters


def told(*texts: str | None, known: tuple[str, ...] = ("LATIN",)) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in letters.told(texts, known).items()}


def test_characters_words_and_what_is_not_ascii() -> None:
    found = told("Ça va bien.", "", "two words")
    assert found["characters"] == [11, 0, 9]
    assert found["words"] == [3, 0, 2]
    assert found["non_ascii"] == pytest.approx([1 / 11, 0, 0])


def test_a_missing_text_has_no_number() -> None:
    assert all(np.isnan(values).all() for values in letters.told([None], ()).values())


@pytest.mark.parametrize(
    "text",
    [
        "caf\ufffd",
        "a\x00b",
        "bell\x07",
        "c1 \x85 control",
        "café".encode().decode("latin-1"),
        "naïve “quotes”".encode().decode("cp1252", "ignore"),
        "it’s".encode().decode("cp1252"),
        "слово".encode().decode("latin-1"),
    ],
)
def test_what_was_decoded_wrongly_shows(text: str) -> None:
    assert told(text)["damaged"] == [1]


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "naïve “quotes”",
        "it’s",
        "слово",
        "日本語",
        "tab\tline\nend\r\n",
        "Île-de-France",
        "São Paulo",
        "Ångström",
        "🙂",
        "",
    ],
)
def test_what_is_only_not_english_is_sound(text: str) -> None:
    assert told(text)["damaged"] == [0]


def test_scripts_of_a_hundredth_of_the_letters_are_known() -> None:
    assert letters.scripts(["a" * 98 + "я" * 2]) == ["CYRILLIC", "LATIN"]
    assert letters.scripts(["a" * 995 + "я" * 5]) == ["LATIN"]
    assert letters.scripts(["", None, "12 !"]) == []


def test_a_text_is_foreign_if_most_of_its_letters_are() -> None:
    assert told("Это чужое", "mostly here, слово", "123 !?", "日本語", "한국어 text")["foreign"] == [1, 0, 0, 1, 0]
    assert told("Это", known=("LATIN", "CYRILLIC"))["foreign"] == [0]


def test_unknown_words_are_a_share_of_all_words() -> None:
    known = letters.words(["The cat.", None, "the DOG"])
    assert known == {"the": 2, "cat": 1, "dog": 1}
    assert letters.unknown(["the cow, the owl"], known) == 0.5
    assert letters.unknown([None, ""], known) == 0
    assert letters.unknown_each(["cow", "cat cow", None], known).tolist()[:2] == [1, 0.5]


def test_bare_texts_are_alike_whatever_their_case_signs_and_spaces() -> None:
    said = ["It's  GOOD!", "its good", "ＩＴＳ good…", "Straße", "STRASSE", "?!", None]
    assert letters.bare(said) == ["itsgood", "itsgood", "itsgood", "strasse", "strasse", "?!", None]
