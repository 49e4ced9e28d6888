import json
import random

import pytest

from framework.errors import UserError
from framework.model.tokenizer import load_tokenizer
from framework.model.tokenizer_files import RESERVED, write_tokenizer_files
from tests.model import small_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    source = small_tokenizer.write(tmp_path_factory.mktemp("source"))
    target = tmp_path_factory.mktemp("model")
    ids = write_tokenizer_files(source, target)
    assert ids == {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 2, "mask_token_id": 10}
    return target


@pytest.fixture(scope="module")
def processor(directory):
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))


@pytest.mark.parametrize("with_json", [True, False], ids=["tokenizer.json", "tokenizer.model"])
def test_transformers_gives_the_ids_and_the_text_of_sentencepiece(directory, processor, tmp_path, with_json):
    transformers = pytest.importorskip("transformers")
    for file in directory.iterdir():
        if with_json or file.name != "tokenizer.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in small_tokenizer.texts():
        ids = processor.encode(text)
        assert theirs.encode(text) == ids
        assert theirs.decode(ids) == text
    assert theirs.convert_tokens_to_ids(list(RESERVED)) == list(range(1, 11))
    assert processor.piece_to_id(list(RESERVED)) == list(range(1, 11))
    assert (theirs.mask_token, theirs.mask_token_id) == ("<|mask|>", 10)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 1, 2)
    assert set(RESERVED) <= set(theirs.all_special_tokens)


def test_ours_reads_both_files_alike(directory, processor):
    pytest.importorskip("tokenizers")
    for name in ("tokenizer.model", "tokenizer.json"):
        ours = load_tokenizer(directory / name)
        assert (ours.begin, ours.end, ours.size) == (1, {1}, 360)
        for text in small_tokenizer.texts():
            ids = ours.encode(text)
            assert ids == processor.encode(text)
            assert ours.decode(ids) == text
            assert ours.decode([1, *ids, 10, 6, 2]) == text


def test_spelled_out_control_symbols_are_text(directory):
    ours = load_tokenizer(directory)
    text = "".join(RESERVED) + " and <|user|>"
    assert not set(ours.encode(text)) & set(ours.reserved.values())
    assert ours.decode(ours.encode(text)) == text


def test_a_tokenizer_of_before_there_was_infilling_is_written_as_it_is(tmp_path):
    transformers = pytest.importorskip("transformers")
    source = small_tokenizer.write(tmp_path / "source", infilling=())
    (tmp_path / "model").mkdir()
    assert write_tokenizer_files(source, tmp_path / "model")["pad_token_id"] == 2
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (len(theirs), theirs.mask_token) == (360, None)
    assert theirs.convert_tokens_to_ids(theirs.all_special_tokens) == [1, 0, 2, 3, 4, 5, 6]
    ours = load_tokenizer(tmp_path / "model")
    assert list(ours.reserved.values()) == list(range(7))
    assert all(theirs.encode(text) == ours.encode(text) for text in small_tokenizer.texts(50))


def byte_level(directory, add_prefix_space=False):
    """A byte-level BPE tokenizer as GPT-2, Llama 3 and Qwen3 have it."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|endoftext|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(small_tokenizer.texts(), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer


def test_byte_level_tokenizers_round_trip(tmp_path):
    theirs = byte_level(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|endoftext|>"})
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1]}))
    ours = load_tokenizer(tmp_path)
    assert (ours.begin, ours.end, ours.size) == (0, {0, 1}, 330)
    for text in small_tokenizer.texts(seed=1):
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids
        assert ours.decode([0, *ids, 1]) == text == theirs.decode(ids)
    assert {ours.piece(token) for token in range(2, 258)} == {bytes([byte]) for byte in range(256)}


def test_files_of_an_imported_directory_are_copied(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(), target.mkdir()
    byte_level(source)
    (source / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": "<|im_end|>"}')
    (source / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": [0, 1]}')
    assert write_tokenizer_files(source, target) == {
        "bos_token_id": 0,
        "eos_token_id": [0, 1],
        "pad_token_id": None,
        "mask_token_id": None,
    }
    assert sorted(file.name for file in target.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert load_tokenizer(source).begin is None


def test_a_bare_sentencepiece_model_of_others_is_refused(tmp_path):
    from sentencepiece import SentencePieceTrainer

    generator = random.Random(0)
    SentencePieceTrainer.train(
        sentence_iterator=(" ".join(generator.choices(small_tokenizer.WORDS, k=20)) for _ in range(200)),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(UserError, match=r"tokenizer\.model: lacks the control symbol <\|endoftext\|>"):
        write_tokenizer_files(tmp_path / "tokenizer.model", target)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.txt", "", "neither tokenizer.model nor tokenizer.json"),
        ("tokenizer.model", "not a model", "no SentencePiece model"),
        ("tokenizer.json", "{", "no tokenizer"),
    ],
)
def test_damaged_or_missing_files_are_told(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)
