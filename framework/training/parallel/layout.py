"""Which part of the work is whose: rows of the batch, tokens of a row, features of a layer.

The ranks are numbered with the features running fastest, then the tokens, then the rows: those that talk most are
neighbours, as a rule on one machine.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from framework import distributed
from framework.config import ParallelConfig
from framework.model.transformer import positions_in_documents
from framework.stream.loader import share_of
from kernels import documents


@dataclass(frozen=True)
class Layout:
    """The place of one rank.

    Attributes:
        data_rank, data_ranks: which part of a batch's rows is this rank's, and of how many.
        sequence_rank, sequence_ranks: which part of a row's tokens, and of how many.
        tensor_rank, tensor_ranks: which part of a layer's features, and of how many.
    """

    data_rank: int
    data_ranks: int
    sequence_rank: int
    sequence_ranks: int
    tensor_rank: int
    tensor_ranks: int

    @classmethod
    def here(cls, config: ParallelConfig) -> "Layout":
        """That of this process."""
        token_rank, tensor_rank = divmod(distributed.rank(), config.tensor)
        data_rank, sequence_rank = divmod(token_rank, config.sequence)
        data_ranks = config.data_ranks(distributed.world_size())
        return cls(data_rank, data_ranks, sequence_rank, config.sequence, tensor_rank, config.tensor)

    @property
    def token_rank(self) -> int:
        """Which part of a batch's tokens is this rank's; ZeRO shards what is the same in all of them."""
        return self.data_rank * self.sequence_ranks + self.sequence_rank

    @property
    def token_ranks(self) -> int:
        """Into how many parts a batch's tokens are dealt."""
        return self.data_ranks * self.sequence_ranks

    @property
    def speaks_for_rows(self) -> bool:
        """Whether this rank is the one that counts, of those that read the same rows."""
        return self.sequence_rank == 0 and self.tensor_rank == 0

    @property
    def speaks_for_tokens(self) -> bool:
        """Whether this rank is the one that counts, of those that compute the losses of the same tokens."""
        return self.tensor_rank == 0

    def share(self, position: int, sequences: int) -> range:
        """This rank's sequences of the batch that begins at `position`."""
        return share_of(self.data_rank, self.data_ranks, position, sequences)

    def sequence_group(self) -> Any:
        """The process group of the ranks that share this one's rows; every rank of the job must call at once."""
        ranks = torch.arange(distributed.world_size()).view(self.data_ranks, self.sequence_ranks, self.tensor_ranks)
        group, _ = dist.new_subgroups_by_enumeration(ranks.transpose(1, 2).flatten(0, 1).tolist())
        return group

    def inputs(
        self, tokens_BT: Tensor, labels_BT: Tensor, document_BT: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """This rank's part of whole rows, for the model: tokens, labels, document numbers, positions.

        Document numbers stay whole, as attention sees the whole row; positions [B, T] are counted in the whole row
        too, and None where the row is whole and the model may count itself.
        """
        if self.sequence_ranks == 1:
            return tokens_BT, labels_BT, document_BT, None
        length = tokens_BT.shape[1] // self.sequence_ranks
        part = slice(self.sequence_rank * length, (self.sequence_rank + 1) * length)
        positions_BT = positions_in_documents(documents(document_BT))
        return tokens_BT[:, part], labels_BT[:, part], document_BT, positions_BT[:, part]
