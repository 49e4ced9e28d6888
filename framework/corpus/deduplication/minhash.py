"""Near-duplicates: MinHash signatures, bands that agree, and clusters of which the first document stays.

Broder 1997, "On the resemblance and containment of documents"; the banding is that of Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", chapter 3. datatrove computes the signatures and merges the bands
(stages 1 and 2 of its MinHash pipeline); here the documents have numbers that hold over all corpora, and of
each cluster the first document in the order of the corpora stays, where datatrove keeps any.
"""

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.typeshelper import StatHints

from framework.corpus.deduplication.digests import RECORD, write_named
from framework.corpus.deduplication.settings import DeduplicationSettings
from framework.corpus.filters.words import UnicodeWords
from framework.errors import UserError

_SHINGLES = 2048  # hashed at a time: a book's would take gigabytes


def minhash_config(settings: DeduplicationSettings) -> MinhashConfig:
    """The settings as datatrove takes them; hashes have 64 bits."""
    return MinhashConfig(
        n_grams=settings.ngram_words, num_buckets=settings.bands, hashes_per_bucket=settings.rows, seed=settings.seed
    )


class MinhashSignatures(MinhashDedupSignature):
    """Writes the signature of every document, in the files of datatrove's stage 1; the documents pass unchanged.

    Compared are the n-grams of the words of `datatrove.utils.text.simplify_text`: small letters, no
    punctuation or accents, every number as 0. A document of fewer words than an n-gram has no signature and
    no near-duplicates.

    Memory: one band of the task's signatures (68 bytes a document with 8 rows) three times over, and
    2,048 n-grams times 112 hashes.
    """

    type = "deduplication"
    name = "MinHash signatures"

    def __init__(self, folder: Path, first_task: int, settings: DeduplicationSettings) -> None:
        super().__init__(str(folder), minhash_config(settings), UnicodeWords())
        self._folder, self._first_task = folder, first_task
        self._record = np.dtype([("hashes", "<u8", settings.rows), ("number", "<u4")])

    def get_shingles(self, text: str) -> np.ndarray:
        """Hashes of the n-grams of a text, uint64 [n-grams, 1]."""
        accents = not text.isascii()  # looking for them takes a third of the time
        simple = simplify_text(text, replace(self.config.norm_config, norm_unicode_diacritics=accents))
        words = self.word_tokenizer.word_tokenize(simple)
        hashes = [xxhash.xxh64_intdigest(" ".join(gram).encode()) for gram in ngrams(words, self.config.n_grams)]
        return np.array(hashes, np.uint64).reshape(-1, 1)

    def signature(self, text: str) -> np.ndarray | None:
        """Signature of a text, uint64 [bands, rows]; None if it has no n-gram."""
        shingles = self.get_shingles(text)
        parts = [self.get_signature(shingles[i : i + _SHINGLES]) for i in range(0, len(shingles), _SHINGLES)]
        return np.min(np.array(parts, np.uint64), axis=0) if parts else None

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The same documents."""
        task = self._first_task + rank
        unsorted = [self._folder / "unsorted" / f"{task:05d}-{band:03d}" for band in range(self.config.num_buckets)]
        unsorted[0].parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in unsorted]
            for number, document in enumerate(data):
                with self.track_time():
                    self.stat_update(StatHints.total)
                    signature = self.signature(document.text)
                    for file, hashes in zip(files, () if signature is None else signature, strict=False):
                        file.write(np.array((hashes, number), self._record).tobytes())
                yield document
        for band, path in enumerate(unsorted):
            self._sort(path, self._folder / f"bucket_{band:03d}" / f"{task:05d}.minhash.sig")

    def _sort(self, unsorted: Path, place: Path) -> None:
        """The signatures of a band in the order that datatrove's stage 2 wants, under their final name."""
        records = np.fromfile(unsorted, self._record)
        keys = [records["number"], *records["hashes"].T[::-1]]
        place.parent.mkdir(parents=True, exist_ok=True)
        unsorted.write_bytes(records[np.lexsort(keys)].tobytes())
        unsorted.replace(place)


class MinhashBands(MinhashDedupBuckets):
    """Pairs the documents that agree in a band: datatrove's stage 2, one task a band, no documents.

    Memory: 100 signatures (7 kB with 8 rows) of each task that wrote some.

    Raises:
        UserError: it has to open the files of all those tasks at once, and the system forbids so many.
    """

    type = "deduplication"
    name = "MinHash bands"

    def __init__(self, signatures: Path, pairs: Path, settings: DeduplicationSettings) -> None:
        super().__init__(str(signatures), str(pairs), config=minhash_config(settings), lines_to_buffer=100)
        self._signatures = signatures

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the pairs of band `rank`."""
        needed = len(list((self._signatures / f"bucket_{rank:03d}").iterdir())) + 100  # libraries have some open
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if needed > hard != resource.RLIM_INFINITY:
            raise UserError(
                f"deduplication.near: needs {needed:,} open files, and the system allows {hard:,}; "
                f"raise the hard limit (ulimit -Hn) or read the corpora in fewer tasks"
            )
        if soft != resource.RLIM_INFINITY and needed > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        super().run(data, rank, world_size)


class KeepFirstOfClusters(PipelineStep):
    """Joins near pairs to clusters and names all documents of each but the first: one task, no documents.

    A cluster is connected, not complete: its ends may be less alike than the pairs between them.

    Memory: 32 bytes a pair of the bands and 16 bytes a document in any of them.
    """

    type = "deduplication"
    name = "MinHash clusters"

    def __init__(self, pairs: Path, folder: Path) -> None:
        super().__init__()
        self._pairs, self._folder = pairs, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Write what is named; yields nothing."""
        with self.track_time():
            files = sorted(self._pairs.glob("*.dups"))
            pairs = np.concatenate([np.fromfile(file, "<u4").reshape(-1, 4) for file in files]).astype(np.uint64)
            documents = pairs[:, ::2] << np.uint64(32) | pairs[:, 1::2]
            nodes, ends = np.unique(documents, return_inverse=True)
            first = _first_of_cluster(len(nodes), ends.reshape(-1, 2))
            records = np.zeros(int((first != np.arange(len(nodes))).sum()), RECORD)
            records["document"] = nodes[first != np.arange(len(nodes))]
            write_named(self._folder, "near", records)
        yield from ()


def _first_of_cluster(count: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `count` documents the smallest that pairs, int [pairs, 2], connect it with."""
    first = np.arange(count)
    while True:
        least = first[pairs].min(axis=1)
        smaller = first.copy()
        np.minimum.at(smaller, first[pairs[:, 0]], least)  # at the clusters' heads, so that whole clusters join
        np.minimum.at(smaller, first[pairs[:, 1]], least)
        smaller = smaller[smaller]
        if (smaller == first).all():
            return first
        first = smaller
