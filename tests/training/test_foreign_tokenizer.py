"""From a model directory of others, with a tokenizer of others, over prepared data to a model directory."""

import json
import random
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2Tokenizer, PreTrainedTokenizerFast

from framework.config import CorpusConfig, PrepareConfig, ShardConfig
from framework.corpus.foreign import ForeignTokenizer, take_foreign
from framework.corpus.pipeline import prepare
from framework.corpus.shards import read_texts
from framework.corpus.tokenizer import find_tokenizer, take_tokenizer
from framework.errors import UserError
from framework.inference.generation import generate_text, load
from framework.stream.manifest import kept_tokenizer, read_manifest
from framework.training.origin import check_tokenizer
from framework.training.start import keep_tokenizer
from tests.corpus.texts import ODD_TEXTS, random_documents, write_jsonl
from tests.launch import records
from tests.model import small_tokenizer
from tests.model.test_huggingface import THEIRS, their_model
from tests.training.test_origin import first_batch, start, their_loss

LLAMA_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
SPELLED = "a <|endoftext|> b<|begin_of_text|><|eot_id|>c <|end_of_text|>"


def byte_level(special: list[str], split: str | None = None) -> tokenizers.Tokenizer:
    """As GPT-2's; with `split` as Llama 3's, its pattern before the bytes and words that are pieces whole."""
    pre = tokenizers.pre_tokenizers
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=split is not None))
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    if split is not None:
        cut = pre.Split(tokenizers.Regex(split), "isolated")
        tokenizer.pre_tokenizer = pre.Sequence([cut, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=370,
        initial_alphabet=pre.ByteLevel.alphabet(),
        special_tokens=special if split is None else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(small_tokenizer.texts(), trainer)
    if split is not None:
        tokenizer.add_special_tokens(special)  # after the pieces, and not among them
        opening = tokenizers.processors.TemplateProcessing(
            single=f"{special[0]} $A", special_tokens=[(special[0], tokenizer.token_to_id(special[0]))]
        )
        tokenizer.post_processor = opening
    return tokenizer


@pytest.fixture(scope="module")
def origins(tmp_path_factory) -> Path:
    """GPT-2 and Llama as transformers writes them, with room in the vocabulary for more than there is."""
    folder = tmp_path_factory.mktemp("origins")
    byte_level(["<|endoftext|>"]).save(str(folder / "gpt2.json"))
    GPT2Tokenizer.from_pretrained(_parts(folder / "gpt2.json")).save_pretrained(folder / "gpt2")
    their_model("GPT2", THEIRS["gpt2"][1] | {"bos_token_id": 0, "eos_token_id": 0}).save_pretrained(folder / "gpt2")

    split = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*| ?\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+"
    llama = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(LLAMA_SPECIAL, split),
        bos_token=LLAMA_SPECIAL[0],
        eos_token=LLAMA_SPECIAL[1],
        chat_template="{{ messages[0]['content'] }}",
    )
    llama.save_pretrained(folder / "llama")
    ids = {"bos_token_id": llama.bos_token_id, "eos_token_id": llama.eos_token_id}
    their_model("Llama", ids).save_pretrained(folder / "llama")
    several = llama.convert_tokens_to_ids(LLAMA_SPECIAL[1:])
    GenerationConfig(bos_token_id=llama.bos_token_id, eos_token_id=several).save_pretrained(folder / "llama")
    return folder


def _parts(file: Path) -> Path:
    """A directory with the vocabulary and merges that GPT-2's tokenizer is made of."""
    directory = file.with_suffix("")
    directory.mkdir()
    model = json.loads(file.read_text())["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return directory


@pytest.fixture(scope="module")
def prepared(origins, tmp_path_factory) -> dict[str, Path]:
    """The same documents for each of the two."""
    folder = tmp_path_factory.mktemp("prepared")
    chance = random.Random(3)
    documents = random_documents(120, seed=1)
    odd = [{"text": text} for text in [*ODD_TEXTS, SPELLED] if len(text) > 20]
    written = [{"text": "".join(chance.choices(small_tokenizer.texts(), k=9))} for _ in range(30)]
    write_jsonl(folder / "texts.jsonl", [*documents, *odd, *written])
    for name in ("gpt2", "llama"):
        config = PrepareConfig(
            output=str(folder / name),
            corpora={"web": CorpusConfig(paths=[str(folder / "texts.jsonl")], weight=1)},
            shards=ShardConfig(block_tokens=500, minimum_blocks=8),
            validation_fraction=0.1,
        )
        config.tokenizer.path = str(origins / name)
        prepare(config)
    return {name: folder / name for name in ("gpt2", "llama")}


def token_documents(data: Path, split: str) -> list[list[int]]:
    """The ids of each document, read from the shards."""
    corpus = read_manifest(data).corpora["web"]
    found = []
    for block in getattr(corpus, split).blocks:
        content = Path(block.shard).read_bytes()
        members = [
            np.lib.format.read_array(BytesIO(content[begin : begin + size]))
            for begin, size in (
                (block.tokens_offset, block.tokens_bytes),
                (block.lengths_offset, block.lengths_bytes),
            )
        ]
        found += [part.tolist() for part in np.split(members[0], np.cumsum(members[1])[:-1])]
    return found


@pytest.mark.parametrize(("name", "opens"), [("gpt2", "<|endoftext|>"), ("llama", "<|begin_of_text|>")])
def test_the_ids_are_those_of_transformers(origins, prepared, name, opens):
    theirs = AutoTokenizer.from_pretrained(origins / name)
    opening = theirs.convert_tokens_to_ids(opens)
    spelled = 0
    for split in ("train", "validation"):
        texts = [text for path in sorted((prepared[name] / "text/web").glob(f"{split}-*")) for text in read_texts(path)]
        expected = [theirs.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]
        assert token_documents(prepared[name], split) == [[opening, *ids] for ids in expected]
        spelled += sum(opens in text for text in texts)
        assert not any(set(ids) & set(theirs.all_special_ids) for ids in expected)
    assert spelled
    block = json.loads((prepared[name] / "tokens/manifest.json").read_text())["tokenizer"]
    assert set(block) == {"path", "sha256", "vocabulary_size", "end_of_text", "reserved"}
    assert block["path"] == "../tokenizer/tokenizer.json"
    assert (block["vocabulary_size"], block["end_of_text"]) == (len(theirs), opening)
    special = ["<|endoftext|>"] if name == "gpt2" else LLAMA_SPECIAL
    assert block["reserved"] == {token: theirs.convert_tokens_to_ids(token) for token in special}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_a_model_is_continued_in_its_own_tokens(runs, origins, prepared, name):
    settings = (f"model.from={origins / name}", "samples.every=2", "samples.tokens=4", "samples.prompts=[the]")
    start(runs, prepared[name], f"foreign-{name}", *settings)
    there = runs / f"foreign-{name}"
    theirs = AutoModelForCausalLM.from_pretrained(origins / name, dtype=torch.float32).eval()
    expected = their_loss(theirs, first_batch(prepared[name]))
    assert records(there)[0]["train/loss"] == pytest.approx(expected, rel=1e-5)

    again = AutoModelForCausalLM.from_pretrained(there / "model", dtype=torch.float32)
    assert type(again) is type(theirs)
    assert again.config.bos_token_id == theirs.config.bos_token_id
    assert again.generation_config.eos_token_id == theirs.generation_config.eos_token_id
    assert again.config.vocab_size == 384 > read_manifest(prepared[name]).vocabulary_size
    tokenizer, before = (AutoTokenizer.from_pretrained(place) for place in (there / "model", origins / name))
    assert type(tokenizer) is type(before)
    assert tokenizer.special_tokens_map == before.special_tokens_map
    assert tokenizer.chat_template == before.chat_template
    for text in [*ODD_TEXTS, SPELLED, *small_tokenizer.texts(50)]:
        assert tokenizer.encode(text) == before.encode(text)
    model, ours = load(there / "model")
    text = "".join(generate_text(model, ours, "the river", maximum_tokens=8))
    prompt = ([] if ours.begin is None else [ours.begin]) + before.encode("the river", add_special_tokens=False)
    ids = again.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
    assert text == before.decode(ids, skip_special_tokens=True)


def taken(source: Path, directory: Path) -> tuple[str, int]:
    """The token that opens documents, and how often a text that spells it out has it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    facts = take_tokenizer(directory, find_tokenizer(source))
    tokenizer = ForeignTokenizer(directory)
    opens = next(token for token, number in facts["reserved"].items() if number == facts["end_of_text"])
    assert (tokenizer.opens, tokenizer.vocab_size()) == (facts["end_of_text"], facts["vocabulary_size"])
    return opens, tokenizer.encode([f"a {opens} b{opens}"])[0].tolist().count(tokenizer.opens)


@pytest.mark.parametrize(
    ("settings", "config", "opens"),
    [
        ({"bos_token": "<a>", "eos_token": "<b>"}, {"bos_token_id": 2}, "<a>"),
        ({"bos_token": None, "eos_token": {"content": "<b>"}}, {"bos_token_id": 2, "eos_token_id": 1}, "<c>"),  # Qwen3
        ({"eos_token": "<b>"}, {"bos_token_id": 300, "eos_token_id": [2, 1]}, "<b>"),  # 300 is a piece of text
        ({"model_max_length": 1024}, {"bos_token_id": None, "eos_token_id": [2, 1]}, "<c>"),
    ],
)
def test_the_begin_of_a_text_opens_a_document_or_else_its_end(tmp_path, settings, config, opens):
    byte_level(["<a>", "<b>", "<c>"]).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert taken(tmp_path, tmp_path / "taken") == (opens, 0)
    assert taken(tmp_path / "tokenizer.json", tmp_path / "taken") == (opens, 0)
    for name in ("tokenizer_config.json", "config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r'^tokenizer\.path: no special token of .* name one as "bos_token" in'):
        taken(tmp_path, tmp_path / "taken")
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<b>"}')
    assert taken(tmp_path, tmp_path / "taken")[0] == "<b>"


def test_a_tokenizer_whose_merges_spell_a_special_token_is_refused(tmp_path):
    """One without a pattern that would cut it, and that takes pieces whole."""
    pieces = {character: number for number, character in enumerate("<s> ab")} | {"<s>": 6}
    model = tokenizers.models.BPE(vocab=pieces, merges=[], ignore_merges=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(UserError, match="turns a text that spells out <s> into that special token"):
        take_foreign(tmp_path, tmp_path / "tokenizer.json")


def test_which_file_of_a_directory_is_taken(tmp_path, origins):
    shutil.copytree(origins / "llama", tmp_path / "both")
    own = small_tokenizer.write(tmp_path / "both")
    assert find_tokenizer(tmp_path / "both") == own
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has neither tokenizer\.model nor tokenizer\.json"):
        find_tokenizer(tmp_path / "empty")
    (tmp_path / "both/tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"both/tokenizer\.json is no tokenizer \("):
        taken(tmp_path / "both/tokenizer.json", tmp_path / "taken")


def test_a_sentencepiece_model_of_others_is_taken_once_transformers_wrote_its_json(tmp_path):
    import sentencepiece

    source = tmp_path / "source"
    source.mkdir()
    with (source / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(small_tokenizer.texts()),
            model_writer=file,
            model_type="bpe",
            vocab_size=340,
            byte_fallback=True,
            minloglevel=2,
        )
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(UserError, match=r"none of Loam's; give a directory with its tokenizer\.json, which AutoTokeni"):
        taken(source, tmp_path / "taken")
    AutoTokenizer.from_pretrained(source).save_pretrained(source)
    assert taken(source, tmp_path / "taken") == ("<s>", 0)
    theirs = AutoTokenizer.from_pretrained(source)
    texts = [text for text in small_tokenizer.texts(seed=2) if text]
    for text, ids in zip(texts, ForeignTokenizer(tmp_path / "taken").encode(texts), strict=True):
        assert ids.tolist() == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)


def test_the_model_and_the_data_have_to_agree(origins, prepared, tmp_path):
    manifest = read_manifest(prepared["llama"])
    small_tokenizer.write(tmp_path / "run")  # left by a start with other data
    keep_tokenizer(manifest, tmp_path / "run", str(origins / "llama"))
    kept = kept_tokenizer(tmp_path / "run")
    assert kept == tmp_path / "run/tokenizer"
    with pytest.raises(UserError, match=rf"it gives other ids.*tokenizer\.path={origins / 'gpt2'} "):
        check_tokenizer(str(origins / "gpt2"), manifest, kept)
    shutil.copytree(origins / "llama", tmp_path / "anew")
    file = tmp_path / "anew/tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text())))  # the same, in other words
    assert file.read_bytes() != (origins / "llama/tokenizer.json").read_bytes()
    check_tokenizer(str(tmp_path / "anew"), manifest, kept)

    shutil.copytree(prepared["llama"], tmp_path / "altered")
    (tmp_path / "altered/tokenizer/generation_config.json").write_text('{"bos_token_id": 5}')
    with pytest.raises(UserError, match=r"says 373 ids and end of text 370, .* has 373 and 5; prepare the data again"):
        keep_tokenizer(read_manifest(tmp_path / "altered"), tmp_path / "run", "")
