"""Documents packed into rows: attention never crosses from one to another.

Shapes: B batch, T time.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Documents(NamedTuple):
    """Where the document of each token of a row lies; both int32 [batch, time].

    Made once a batch, by `documents`, it spares every layer the work.
    """

    first_BT: Tensor  # where the document begins in its row: no other document of the row has the same
    end_BT: Tensor  # the place behind its last token


def documents(number_BT: Tensor) -> Documents:
    """From the documents' numbers: int [batch, time]; each run of equal numbers is a document.

    Raises ValueError for numbers that are no integers.
    """
    if number_BT.is_floating_point() or number_BT.is_complex():
        raise ValueError(f"document must be integers, got {number_BT.dtype}")
    time = number_BT.shape[1]
    index_BT = torch.arange(time, dtype=torch.int32, device=number_BT.device).expand_as(number_BT)
    changes_BT = number_BT[:, 1:] != number_BT[:, :-1]
    starts_BT = torch.nn.functional.pad(changes_BT, (1, 0), value=True)
    ends_BT = torch.nn.functional.pad(changes_BT, (0, 1), value=True)
    first_BT = torch.where(starts_BT, index_BT, 0).cummax(dim=1).values
    end_BT = torch.where(ends_BT, index_BT + 1, time).flip(1).cummin(dim=1).values.flip(1)
    return Documents(first_BT.to(torch.int32), end_BT.to(torch.int32))


def documents_of(cumulative_lengths: Tensor, rows: int, time: int) -> Tensor:
    """Numbers [rows, time], int32, from cumulative lengths, as `documents` and `attention` take them.

    cumulative_lengths: int [documents + 1] from 0 to rows x time, as flash-attn's `cu_seqlens`: where each document
        begins if all rows are laid one behind the other. One that goes on in the next row is cut there.

    Whether they begin and end where they must is not looked at, for that would wait for the device.
    """
    place = torch.arange(rows * time, device=cumulative_lengths.device, dtype=cumulative_lengths.dtype)
    number = torch.searchsorted(cumulative_lengths, place, right=True)
    return number.to(torch.int32).view(rows, time)
