"""Texts to vectors: the mean of an encoder's last hidden states over the tokens of a text, at length 1.

Mean pooling, as Sentence-BERT has it (arXiv:1908.10084); the encoder was trained on masks and not on likeness, so its
vectors are good for as much as such a mean is.

Shapes: N texts, C hidden size.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from framework.model.classifier import judged, padded
from framework.model.transformer import Transformer


@torch.no_grad()
def embeddings(model: Transformer, texts: Sequence[list[int]]) -> NDArray[np.float32]:
    """Vectors [N, C], fp32, of length 1, of texts as ids, none of them empty."""
    tokens, inside, last = padded(texts, model.embedding.weight.device)
    means_NC = model(
        tokens,
        (~inside).int(),  # the padding is a document of its own
        head=lambda x_BTC, weight_VC: judged(x_BTC.float(), last, inside, causal=False),
    )
    return F.normalize(means_NC, dim=1).cpu().numpy()
