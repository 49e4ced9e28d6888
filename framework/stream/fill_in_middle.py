"""Fill in the middle: documents rearranged so that a left-to-right model learns to infill.

Bavarian et al. 2022, "Efficient training of language models to fill in the middle", arXiv:2207.14255. A document is
cut at two points, drawn uniformly among all places between its tokens and at its ends, into prefix, middle and
suffix, and becomes one of

    <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle       prefix-suffix-middle
    <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle       suffix-prefix-middle (their variant 2)

after the <|endoftext|> that opens it. Each document of a row is rearranged by itself, after packing (their
context-level infilling, which they find better than before packing): a document that a row's end cuts is, in each
row, the part that the row holds, and no sentinel lies in another row than its fellows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.stream.draws import row_states, uniform

MINIMUM = 8  # tokens of text; in a shorter document the sentinels would be more than a quarter
_DRAWS = 4  # numbers that a document draws: whether, in which order, and two points


@dataclass(frozen=True)
class _Documents:
    """The documents of a batch of rows, in order; all arrays have shape [documents].

    Attributes:
        start: place of the first token in the flattened rows.
        tokens: how many there are, <|endoftext|> included.
        opening: 1 where it begins with <|endoftext|>, 0 where it goes on from an earlier row.
        row: the row it lies in.
        number: its number within the row.
        place: place of the first token within the row.
    """

    start: NDArray[np.int64]
    tokens: NDArray[np.int64]
    opening: NDArray[np.int64]
    row: NDArray[np.int64]
    number: NDArray[np.int64]
    place: NDArray[np.int64]


@dataclass(frozen=True)
class FillInMiddle:
    """Rows with some documents rearranged, as a function of (seed, sequence number) and the row alone.

    Attributes:
        rate: probability of a document to be rearranged.
        spm_rate: probability of one of these to have its suffix first.
        seed: of the draws.
        end_of_text, prefix, middle, suffix: ids of the reserved symbols.
    """

    rate: float
    spm_rate: float
    seed: int
    end_of_text: int
    prefix: int
    middle: int
    suffix: int

    def __call__(
        self, rows: NDArray[np.int64], document: NDArray[np.int32], sequences: range
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Tokens, labels and document numbers, each of shape [B, T]; labels are the tokens that follow, sentinels too.

        A row keeps its length: three sentinels for each rearranged document push as many tokens out at the row's
        end, cut off from the last documents before these are rearranged. They are lost to the run in this epoch, as
        the lane's next row begins where it would without. A document with fewer than `MINIMUM` tokens of text, or
        with fewer left in the row, is left as it is.

        Args:
            rows: int64 [B, T + 1], packed documents.
            document: int32 [B, T], their numbers as packed; they are counted anew here.
            sequences: global number of each row, B of them.
        """
        width = rows.shape[1]
        found = self._documents(rows)
        draws = uniform(
            row_states(sequences, "fill_in_middle", self.seed)[found.row][:, None],
            found.number[:, None] * _DRAWS + np.arange(_DRAWS),
        )
        chosen = self._chosen(found, draws[:, 0], width)
        kept = np.clip(width - found.place - _pushed(found, chosen) - 3 * chosen, 0, found.tokens)
        pieces, lengths = self._pieces(found, chosen, kept, draws)
        ends = np.cumsum(lengths)
        source = np.repeat(pieces - (ends - lengths), lengths) + np.arange(rows.size)
        sentinels = np.array([self.prefix, self.suffix, self.middle])
        arranged = np.concatenate([rows.ravel(), sentinels])[source].reshape(rows.shape)
        number = np.repeat(found.number.astype(np.int32), kept + 3 * chosen).reshape(rows.shape)
        return arranged[:, :-1], arranged[:, 1:], np.ascontiguousarray(number[:, :-1])

    def _documents(self, rows: NDArray[np.int64]) -> _Documents:
        """Where documents lie: <|endoftext|> opens one, and so does a row."""
        opens = rows == self.end_of_text
        opening = opens.copy()
        opens[:, 0] = True
        start = np.flatnonzero(opens)
        row, place = np.divmod(start, rows.shape[1])
        first = np.flatnonzero(place == 0)  # document of each row
        return _Documents(
            start=start,
            tokens=np.diff(start, append=rows.size),
            opening=opening.ravel()[start].astype(np.int64),
            row=row,
            number=np.arange(len(start)) - first[row],
            place=place,
        )

    def _chosen(self, found: _Documents, draws: NDArray[np.float64], width: int) -> NDArray[np.bool_]:
        """Which documents are rearranged: those drawn that are long enough, in the row with all sentinels too."""
        chosen = (draws < self.rate) & (found.tokens - found.opening >= MINIMUM)
        left = width - found.place - _pushed(found, chosen) - 3
        return chosen & (np.minimum(found.tokens, left) - found.opening >= MINIMUM)

    def _pieces(
        self,
        found: _Documents,
        chosen: NDArray[np.bool_],
        kept: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the rows are put together from, in order: where each piece begins, and how many tokens it has.

        A place past the end of the flattened rows means a sentinel: prefix, suffix, middle.
        """
        text = kept - found.opening
        points = np.sort((draws[:, 2:] * (text[:, None] + 1)).astype(np.int64), axis=1)
        # Suffix-prefix-middle is prefix-suffix-middle without a prefix, the middle being all before the suffix.
        before = np.where(draws[:, 1] < self.spm_rate, 0, points[:, 0])
        until = points[:, 1]
        begin, one = found.start + found.opening, np.ones_like(text)
        sentinel = found.start[-1] + found.tokens[-1] + np.arange(3)
        places = [found.start, one * sentinel[0], begin, one * sentinel[1], begin + until]
        places += [one * sentinel[2], begin + before]
        lengths = [found.opening, one, before, one, text - until, one, until - before]
        table = np.stack(lengths, axis=1) * chosen[:, None]
        table[:, 0] = np.where(chosen, found.opening, kept)
        return np.stack(places, axis=1).ravel(), table.ravel()


def _pushed(found: _Documents, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How far sentinels before a document push it towards the row's end, shape [documents]."""
    sentinels = 3 * chosen.astype(np.int64)
    before = np.cumsum(sentinels) - sentinels
    return before - before[np.flatnonzero(found.number == 0)][found.row]
