"""Every published rule on a text that breaks it and no other."""

import ast
import inspect
import random
from dataclasses import replace

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import c4_filters, fineweb_quality_filter, gopher_quality_filter
from datatrove.pipeline.filters import gopher_repetition_filter as gopher_repetition_module

from framework.corpus.filters import rules
from framework.corpus.filters.heuristics import c4, fineweb, gopher_quality, gopher_repetition
from framework.corpus.filters.settings import (
    C4Settings,
    FineWebSettings,
    GopherQualitySettings,
    GopherRepetitionSettings,
)

WORDS = [a + b + c for a in ("la", "men", "tor", "vi") for b in ("si", "ra", "no") for c in ("l", "ck", "be", "st")]


def prose(words: int, seed: int = 0) -> str:
    """Lines of ten words, each with stop words and a full stop; no sequence of words comes twice but by chance."""
    chance = random.Random(seed)
    lines = []
    for number in range(words // 10):
        line = [*(chance.choice(WORDS) + str(number) for _ in range(7)), "the", "of", "and"]
        chance.shuffle(line)
        lines.append(" ".join(line) + ".")
    return "\n".join(lines)


def judge(make, settings, text: str):
    return make(settings).filter(Document(text, "1"))


def test_good_prose_passes_all_of_them() -> None:
    document = Document(prose(400), "1")
    for make, settings in (
        (gopher_repetition, GopherRepetitionSettings()),
        (gopher_quality, GopherQualitySettings()),
        (c4, C4Settings()),
        (fineweb, FineWebSettings()),
    ):
        assert make(settings).filter(document) is True
    assert document.text == prose(400)


REPEATED = {
    "gopher_empty": "",
    "gopher_duplicate_paragraphs": "\n\n".join(["x"] * 4 + [prose(100)]),
    "gopher_duplicate_paragraph_characters": "\n\n".join(
        [*prose(200).split("\n"), *[prose(100, 1).replace("\n", " ")] * 2]
    ),
    "gopher_duplicate_lines": "\n".join([*prose(100).split("\n"), *["x"] * 6]),
    "gopher_duplicate_line_characters": "\n".join([*prose(200).split("\n"), *[prose(100, 1).replace("\n", " ")] * 2]),
    "gopher_top_2_gram": " ".join(f"{WORDS[i % 40]}{i} the wonderful" for i in range(60)),
}


@pytest.mark.parametrize("rule", REPEATED)
def test_gopher_repetition(rule: str) -> None:
    assert judge(gopher_repetition, GopherRepetitionSettings(), REPEATED[rule]) == (False, rule)


@pytest.mark.parametrize("words", range(5, 11))
def test_gopher_repeated_sequences(words: int) -> None:
    """A sequence that comes three times: two of them count. Shares are computed here anew."""
    sequence = " ".join(f"{WORDS[i]}{i}" for i in range(words))
    text = "\n".join(f"{prose(150, seed)} before{seed} {sequence} after{seed}" for seed in range(3))
    share = 2 * len(sequence.replace(" ", "")) / len(text)
    for limit, verdict in ((share - 1e-3, (False, f"gopher_duplicate_{words}_grams")), (share + 1e-3, True)):
        settings = GopherRepetitionSettings(duplicate_ngram_character_fraction={words: limit})
        assert judge(gopher_repetition, settings, text) == verdict


STRANGE = {
    "gopher_few_words": prose(40),
    "gopher_short_words": " ".join(["the", "of", "be", "a"] * 20),
    "gopher_long_words": "the of and " + " ".join(f"incomprehensibility{i}" for i in range(80)),
    "gopher_hashes": prose(100) + " " + "#" * 30,
    "gopher_ellipses": prose(100) + " ..." * 30,
    "gopher_bullets": "\n".join("- " + line for line in prose(100).split("\n")),
    "gopher_ellipsis_lines": "\n".join(line + (".." if i % 2 else "") for i, line in enumerate(prose(100).split("\n"))),
    "gopher_not_alphabetic": prose(100) + " 12345" * 60,
    "gopher_stop_words": prose(100).replace("of", "oft").replace("and", "under"),
}


@pytest.mark.parametrize("rule", STRANGE)
def test_gopher_quality(rule: str) -> None:
    assert judge(gopher_quality, GopherQualitySettings(), STRANGE[rule]) == (False, rule)


def test_gopher_quality_of_long_documents_and_of_none() -> None:
    settings = GopherQualitySettings(maximum_words=300)
    assert judge(gopher_quality, settings, prose(400)) == (False, "gopher_many_words")
    assert judge(gopher_quality, settings, "") == (False, "gopher_few_words")
    german = replace(settings, stop_words=["der", "die", "und"])
    assert judge(gopher_quality, german, prose(100)) == (False, "gopher_stop_words")


def test_c4_takes_lines_out_and_then_counts_sentences() -> None:
    lines = prose(80).split("\n")
    bad = [
        "Home | About",
        "Too few.",
        "Please enable Javascript to see this.",
        "We use cookies on this site.",
        "x" * 1001 + " a b.",
    ]
    document = Document("\n".join([*bad, *lines[:4], *bad, lines[4] + "[12]"]), "1")
    assert c4(C4Settings(remove_citations=False, minimum_sentences=4)).filter(document) is True
    assert document.text == "\n".join(lines[:4])
    document = Document("\n".join([*lines[:4], lines[4].replace(".", "[12].")]), "1")
    assert c4(C4Settings()).filter(document) is True
    assert document.text == "\n".join(lines[:5])
    assert judge(c4, C4Settings(), "\n".join(lines[:4])) == (False, "c4_few_sentences")
    assert judge(c4, C4Settings(), "\n".join([*lines, "Lorem ipsum dolor sit amet."])) == (False, "c4_lorem_ipsum")
    assert judge(c4, C4Settings(), "\n".join([*lines, "It is { in C."])) == (False, "c4_curly_bracket")
    assert judge(c4, C4Settings(drop_curly_brackets=False), "\n".join([*lines, "It is { in C."])) is True
    assert judge(c4, C4Settings(require_terminal_punctuation=False, minimum_sentences=0), "no end at all here") is True


FRAGMENTS = {
    "fineweb_empty": "\n \n",
    "fineweb_line_ends": prose(100).replace(".", ","),
    "fineweb_short_lines": prose(100) + "\n" + "\n".join(f"Item {i}." for i in range(30)),
    "fineweb_duplicate_lines": prose(100) + "\n" + prose(20),
    "fineweb_list": "\n".join(f"internationalisation{i} incomprehensibility{i}." for i in range(30)),
}


@pytest.mark.parametrize("rule", FRAGMENTS)
def test_fineweb(rule: str) -> None:
    assert judge(fineweb, FineWebSettings(), FRAGMENTS[rule]) == (False, rule)


@pytest.mark.parametrize(
    ("module", "filter_name", "names"),
    [
        (gopher_repetition_module, "GopherRepetitionFilter", rules.GOPHER_REPETITION),
        (gopher_quality_filter, "GopherQualityFilter", rules.GOPHER_QUALITY),
        (c4_filters, "C4QualityFilter", rules.C4),
        (fineweb_quality_filter, "FineWebQualityFilter", rules.FINEWEB),
    ],
)
def test_every_reason_in_the_source_of_datatrove_has_a_name(module, filter_name: str, names: dict[str, str]) -> None:
    tree = ast.parse(inspect.getsource(getattr(module, filter_name)))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    reasons = {ast.unparse(value.elts[1]) for value in returned if isinstance(value, ast.Tuple)}
    known = {repr(name) for name in names} | {"f'top_{n}_gram'", "f'duplicated_{n}_n_grams'"}
    assert reasons <= known
    assert set(names.values()) <= set(rules.RULES)
