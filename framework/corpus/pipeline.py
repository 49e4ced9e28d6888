"""`prepare`: the three stages, one after another, each kept where it is sound.

raw files --texts--> output/text/NAME/ --tokenizer--> output/tokenizer/ --tokens--> output/tokens/NAME/
                                                                                    output/tokens/manifest.json
"""

import errno
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from framework.config import CorpusConfig, PrepareConfig
from framework.corpus.digests import file_digest
from framework.corpus.manifest import Block, Corpus, HeldOut, Manifest, Shard, Split, Tokenizer
from framework.corpus.readers import find_files, library_versions
from framework.corpus.report import Reporter
from framework.corpus.stages import Facts, Stage, ensure
from framework.corpus.texts import SPLITS, write_text_shards
from framework.corpus.tokenizer import MODEL, load_tokenizer, train_tokenizer
from framework.corpus.tokens import token_dtype, write_token_shards
from framework.errors import UserError

RECIPE = 1  # raise it when the same inputs would now give other shards: old ones are then made again

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def prepare(config: PrepareConfig) -> Manifest:
    """Raw files to text shards, a tokenizer and token shards under `config.output`.

    Returns:
        The manifest, as it was written to `tokens/manifest.json`.

    Raises:
        UserError: an input is missing or damaged, a setting does not fit the text, or the output
            cannot be written. Nothing half-written is left, and stages done before stay.
    """
    config.check()
    reporter = Reporter()
    try:
        texts = {name: _texts(config, name, corpus, reporter) for name, corpus in config.corpora.items()}
        tokenizer = _tokenizer(config, texts, reporter)
        tokens = {name: _tokens(config, name, stage, tokenizer, reporter) for name, stage in texts.items()}
        manifest = _manifest(config, texts, tokenizer, tokens)
        manifest.write(_manifest_path(config))
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        raise UserError(f"output: {error.filename}: {error.strerror}; make room or choose another directory") from error
    reporter.show(manifest)
    reporter.say(f"manifest: {_manifest_path(config)}, digest {manifest.digest[:16]}")
    return manifest


def _manifest_path(config: PrepareConfig) -> Path:
    return Path(config.output) / "tokens" / "manifest.json"


def _texts(config: PrepareConfig, name: str, corpus: CorpusConfig, reporter: Reporter) -> Stage:
    """The text shards of one corpus."""
    files = find_files(f"corpora.{name}.paths", corpus.paths)
    settings = asdict(corpus)
    for irrelevant in ("paths", "weight"):  # to the shards
        del settings[irrelevant]
    inputs = {
        "recipe": RECIPE,
        "corpus": settings,
        "validation_fraction": config.validation_fraction,
        "bytes_per_shard": config.shards.bytes_per_shard,
        "files": [[path.name, file_digest(path)] for path in files],
        "libraries": library_versions(corpus.reader),
    }

    def build(directory: Path) -> Facts:
        with reporter.track(f"{name}: reading") as advance:
            facts = write_text_shards(
                directory, name, corpus, files, config.validation_fraction, config.shards.bytes_per_shard, advance
            )
        kept = sum(facts[split]["documents"] for split in SPLITS)
        reporter.say(f"{name} text: kept {kept:,} of {facts['documents_in']:,} documents")
        return facts

    return ensure(Path(config.output) / "text" / name, f"{name} text", inputs, build, reporter.say)


def _tokenizer(config: PrepareConfig, texts: dict[str, Stage], reporter: Reporter) -> Stage:
    """The tokenizer, trained on the training split of all corpora."""
    inputs = {
        "recipe": RECIPE,
        "tokenizer": asdict(config.tokenizer),
        "texts": {name: stage.digest for name, stage in texts.items()},
        "libraries": {"sentencepiece": version("sentencepiece")},
    }

    def build(directory: Path) -> Facts:
        _manifest_path(config).unlink(missing_ok=True)  # it describes tokens of the old tokenizer
        reporter.say(f"tokenizer: training {config.tokenizer.vocabulary_size:,} pieces")
        shards = [path for stage in texts.values() for path in sorted(stage.directory.glob("train-*.tar"))]
        total_bytes = sum(stage.facts["train"]["bytes"] for stage in texts.values())
        return train_tokenizer(directory, config.tokenizer, shards, total_bytes)

    return ensure(Path(config.output) / "tokenizer", "tokenizer", inputs, build, reporter.say)


def _tokens(config: PrepareConfig, name: str, texts: Stage, tokenizer: Stage, reporter: Reporter) -> Stage:
    """The token shards of one corpus."""
    inputs = {
        "recipe": RECIPE,
        "texts": texts.digest,
        "tokenizer": tokenizer.digest,
        "shards": asdict(config.shards),
    }

    def build(directory: Path) -> Facts:
        _manifest_path(config).unlink(missing_ok=True)  # it lists the shards that are about to be replaced
        processor = load_tokenizer(tokenizer.directory)
        facts: Facts = {}
        for split in SPLITS:
            shards = sorted(texts.directory.glob(f"{split}-*.tar"))
            # Only training blocks are shuffled and dealt, so only they must be many.
            minimum_blocks = config.shards.minimum_blocks if split == "train" else 1
            with reporter.track(f"{name}: encoding {split}", texts.facts[split]["documents"]) as advance:
                facts[split] = write_token_shards(
                    directory, split, shards, processor, config.shards, minimum_blocks, advance
                )
        reporter.say(f"{name} tokens: {sum(facts[split]['tokens'] for split in SPLITS):,}")
        return facts

    return ensure(Path(config.output) / "tokens" / name, f"{name} tokens", inputs, build, reporter.say)


def _manifest(config: PrepareConfig, texts: dict[str, Stage], tokenizer: Stage, tokens: dict[str, Stage]) -> Manifest:
    """Everything that a reader of the tokens needs to know."""
    corpora = {}
    for name, corpus in config.corpora.items():
        read, encoded = texts[name].facts, tokens[name].facts
        splits = {
            split: {
                **read[split],
                "tokens": encoded[split]["tokens"],
                "shards": [_shard(name, shard) for shard in encoded[split]["shards"]],
            }
            for split in SPLITS
        }
        corpora[name] = Corpus(
            weight=corpus.weight,
            source=corpus.source,
            licence=corpus.licence,
            documents_in=read["documents_in"],
            documents_kept=read["documents_in"] - sum(read["dropped"].values()),
            dropped=read["dropped"],
            train=Split(**splits["train"]),
            validation=HeldOut(**splits["validation"]),
        )
    identity = Tokenizer(
        path=f"../tokenizer/{MODEL}", sha256=file_digest(tokenizer.directory / MODEL), **tokenizer.facts
    )
    return Manifest(identity, token_dtype(identity.vocabulary_size), corpora)


def _shard(corpus: str, facts: Facts) -> Shard:
    """A shard of a corpus as the manifest lists it: its stage knows the path within the corpus only."""
    blocks = [Block(**block) for block in facts["blocks"]]
    return Shard(path=f"{corpus}/{facts['path']}", bytes=facts["bytes"], sha256=facts["sha256"], blocks=blocks)
