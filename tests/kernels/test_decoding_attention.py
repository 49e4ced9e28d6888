"""One query a row, rows of different lengths: each as the reference has it for that row alone."""

import pytest
import torch

import kernels
from kernels import reference


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (8, 1)], ids=str)
@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_row_sees_its_own_keys(heads, window, dtype):
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 17, 9, 4]  # keys of each row, its own included
    q = torch.randn(4, 1, heads[0], 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 4, 20, heads[1], 8, generator=generator, dtype=torch.float64)
    visible = torch.zeros(4, 20, dtype=torch.bool)
    for row, length in enumerate(lengths):
        visible[row, max(0, length - window) if window else 0 : length] = True
    found = kernels.decoding_attention(q.to(dtype), k.to(dtype), v.to(dtype), visible)
    for row, length in enumerate(lengths):
        one = (q[row : row + 1], k[row : row + 1, :length], v[row : row + 1, :length])
        options = {"causal": True, "document": None, "window": window, "scale": 8**-0.5, "softcap": 0.0}
        expected, _ = reference.attention(*one, **options)
        bound = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(found[row : row + 1].double(), expected, rtol=bound, atol=bound)
