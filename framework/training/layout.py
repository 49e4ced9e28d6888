"""Which part of the work is whose: rows of the batch, and tokens of a row.

The ranks are numbered with the tokens running fastest, so ranks that share a row are neighbours, as a rule on one
machine, where talking costs least.
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


@dataclass(frozen=True)
class Layout:
    """The place of one rank.

    Attributes:
        data_rank, data_ranks: which part of a batch's rows is this rank's, and of how many.
        sequence_rank, sequence_ranks: which part of a row's tokens, and of how many.
    """

    data_rank: int
    data_ranks: int
    sequence_rank: int
    sequence_ranks: int

    @classmethod
    def here(cls, config: ParallelConfig) -> "Layout":
        """That of this process."""
        data_rank, sequence_rank = divmod(distributed.rank(), config.sequence)
        return cls(data_rank, config.data_ranks(distributed.world_size()), sequence_rank, config.sequence)

    @property
    def leads(self) -> bool:
        """Whether this rank is the one that counts, of those that read the same rows."""
        return self.sequence_rank == 0

    def share(self, position: int, sequences: int) -> range:
        """This rank's sequences of the batch that begins at `position`."""
        return share_of(self.data_rank, self.data_ranks, position, sequences)

    def part(self, tokens: int) -> slice:
        """This rank's part of a row of so many tokens."""
        length = tokens // self.sequence_ranks
        return slice(self.sequence_rank * length, (self.sequence_rank + 1) * length)

    def sequence_group(self) -> Any:
        """The process group of the ranks that share this one's rows; every rank of the job must call at once."""
        rows = torch.arange(distributed.world_size()).view(-1, self.sequence_ranks)
        group, _ = dist.new_subgroups_by_enumeration(rows.tolist())
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
        part = self.part(tokens_BT.shape[1])
        return tokens_BT[:, part], labels_BT[:, part], document_BT, positions_in_documents(document_BT)[:, part]
