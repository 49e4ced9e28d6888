"""Masked language modelling: some tokens are corrupted, and a bidirectional encoder is to say what they were.

Devlin et al. 2018, "BERT", arXiv:1810.04805, corrupt 15 % of the tokens, of which 80 % become <|mask|>, 10 % any
token, and 10 % stay. Warner et al. 2024, "ModernBERT", arXiv:2412.13663, corrupt 30 %, and all become <|mask|>.
"""

import numpy as np
from numpy.typing import NDArray

from framework.stream.draws import row_states, uniform
from framework.stream.loader import NO_LOSS

_DRAWS = 3  # numbers that a position draws: whether, what it becomes, and which token


class MaskedLM:
    """Rows with some tokens corrupted, as a function of (seed, sequence number) and the row alone.

    Args:
        rate: probability of a token to be chosen.
        masked: share of the chosen tokens that become <|mask|>.
        random: share that become another token, drawn uniformly from those that are not reserved; the rest stay.
        seed: of the draws.
        vocabulary_size: ids there are.
        mask: id of <|mask|>.
        reserved: ids that text never becomes, <|mask|> among them; none is ever chosen, nor drawn.
    """

    def __init__(
        self, rate: float, masked: float, random: float, seed: int, vocabulary_size: int, mask: int, reserved: set[int]
    ) -> None:
        self.rate, self.masked, self.random, self.seed, self.mask = rate, masked, random, seed, mask
        self._is_text = np.ones(vocabulary_size, dtype=bool)
        self._is_text[list(reserved)] = False
        self._ordinary = np.flatnonzero(self._is_text)

    def __call__(
        self, rows: NDArray[np.int64], document: NDArray[np.int32], sequences: range
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Tokens, labels and document numbers, each of shape [B, T].

        Labels are not shifted: where a token was chosen the label is that token as it was, elsewhere `NO_LOSS`. In
        each row one token at least is chosen, unless all of them are reserved. The last token of `rows`, with which
        the lane's next row begins, is not used.

        Args:
            rows: int64 [B, T + 1], packed documents.
            document: int32 [B, T], their numbers.
            sequences: global number of each row, B of them.
        """
        tokens = rows[:, :-1].copy()
        states = row_states(sequences, "masked_lm", self.seed)
        row, position = np.nonzero(self._chosen(tokens, states))
        labels = np.full_like(tokens, NO_LOSS)
        labels[row, position] = tokens[row, position]
        fate, which = (uniform(states[row], _DRAWS * position + draw) for draw in (1, 2))
        drawn = self._ordinary[(which * len(self._ordinary)).astype(np.int64)]
        stays = np.where(fate < self.masked + self.random, drawn, tokens[row, position])
        tokens[row, position] = np.where(fate < self.masked, self.mask, stays)
        return tokens, labels, document

    def _chosen(self, tokens: NDArray[np.int64], states: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which tokens are chosen: those whose draw is below the rate, or the lowest of a row if none is."""
        draws = uniform(states[:, None], _DRAWS * np.arange(tokens.shape[1]))
        is_text = self._is_text[tokens]
        chosen = (draws < self.rate) & is_text
        bare = np.flatnonzero(~chosen.any(axis=1))
        lowest = np.where(is_text[bare], draws[bare], np.inf).argmin(axis=1)
        chosen[bare, lowest] = is_text[bare, lowest]
        return chosen
