"""Sentences in many scripts."""
# ruff: noqa: RUF001

import pytest
from datatrove.data import Document

from framework.corpus.filters.language import LanguageFilter
from framework.corpus.filters.settings import LanguageSettings
from framework.errors import UserError
from tests.corpus.filters.pipelines import SAMPLES, sample_documents

# Article 1 of the Universal Declaration of Human Rights, as the United Nations publish it.
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et "
    "de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem "
    "i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью "
    "и должны поступать в отношении друг друга в духе братства.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}


@pytest.mark.parametrize("language", ARTICLE)
def test_a_language_is_told_from_the_others(language: str) -> None:
    step = LanguageFilter(LanguageSettings([language], 0.65))
    for other, text in ARTICLE.items():
        document = Document(text, other)
        assert step.filter(document) == (True if other == language else (False, "language"))
        assert document.metadata["language"] == other
        assert document.metadata["language_probability"] > 0.65


@pytest.mark.parametrize("name", SAMPLES)
def test_english_of_some_length_passes(name: str) -> None:
    documents = [document for document in sample_documents(name, 400) if len(document.text) >= 200]
    kept = list(LanguageFilter(LanguageSettings()).run(documents))
    assert len(documents) >= 24
    assert len(kept) >= 0.95 * len(documents)


def test_an_uncertain_text_is_dropped_by_the_threshold_alone() -> None:
    text = "Kaffee, Tee, Radio, Internet"
    probe = Document(text, "1")
    LanguageFilter(LanguageSettings(["en"])).filter(probe)
    language, probability = probe.metadata["language"], probe.metadata["language_probability"]
    assert 0 < probability < 1
    assert LanguageFilter(LanguageSettings([language], probability - 0.01)).filter(probe) is True
    assert LanguageFilter(LanguageSettings([language], probability + 0.01)).filter(probe) == (
        False,
        "language_uncertain",
    )


def test_a_language_that_the_model_does_not_know() -> None:
    with pytest.raises(UserError, match="does not know klingon; choose among"):
        LanguageFilter(LanguageSettings(["en", "klingon"]))
