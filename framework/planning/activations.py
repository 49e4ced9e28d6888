"""What the forward pass keeps for the backward pass, tensor by tensor.

Autograd keeps, of a block and for each token, in numbers of the working precision (C hidden size, H and G heads of
queries and of keys, D head size, I intermediate size):

    each norm             its input and its output, the input of what follows            2 C, twice
    attention             queries, keys, values, and the result                          (2 H + 2 G) D
    SwiGLU                both projections, the gate's SiLU, and the product             4 I
    GELU                  the projection and its GELU                                    2 I

and in fp32 the log-sum-exp of attention, H, and a number or two of each norm. Attention keeps no scores: the kernels,
and torch's, make them again. It is what Korthikanti et al. (arXiv:2205.05198, section 4.1) count, without their dropout
masks, for a GELU network with as many key-value heads as heads and I = 4 C: 2 (4 C + 4 C + 8 C) = 32 of their 34 bytes
a number of the hidden size, less 3 for masks, plus 2 x 0.5 for the way norms are written here.

Torch's attention keeps a mask of each row besides, B T T, and its RMSNorm on a CPU the normalised input.
"""

from dataclasses import dataclass

from framework.config import ModelConfig, TrainingConfig
from framework.planning.parameters import Parameters
from framework.planning.work import recomputed_layers

FP32 = 4
TORCH = ("sdpa", "reference")  # of `kernels`


@dataclass(frozen=True)
class Pass:
    """The shape of one forward pass of one rank.

    Attributes:
        rows: of the micro-batch.
        tokens: of them that this rank has, all rows together.
        length: of a row, which attention sees whole.
        number: bytes of a number of the working precision.
        cpu: whether it is on a CPU, where torch's functions compute.
        masks: whether attention is torch's, which makes a mask of the documents.
        tensor, sequence: ranks that share a layer, and a row.
    """

    rows: int
    tokens: int
    length: int
    number: int
    cpu: bool
    masks: bool
    tensor: int
    sequence: int


def pass_of(config: TrainingConfig, rows: int) -> Pass:
    """Of the longest rows of the run."""
    length = max(config.lengths.values())
    return Pass(
        rows=rows,
        tokens=rows * length // config.parallel.sequence,
        length=length,
        number=FP32 if config.precision.dtype == "fp32" else 2,
        cpu=config.cluster.device == "cpu",
        masks=config.cluster.device == "cpu" or config.kernels in TORCH,
        tensor=config.parallel.tensor,
        sequence=config.parallel.sequence,
    )


def kept_bytes(config: TrainingConfig, parameters: Parameters, one: Pass, policy: str) -> float:
    """Of all blocks, the last norm's input and output, and the rotation, when the loss is about to be computed."""
    model = config.model
    layers = model.layers - parameters.first_block
    recomputed = recomputed_layers(policy, layers, config.memory.every)
    inputs = one.tokens * model.hidden_size * one.number
    rotation = one.tokens * model.head_size * FP32 if model.position == "rotary" else 0
    last = norm_bytes(model, model.hidden_size, one)
    return recomputed * inputs + (layers - recomputed) * block_bytes(model, one) + last + rotation


def block_bytes(model: ModelConfig, one: Pass) -> float:
    """What a block keeps of a forward pass that is not to be computed again."""
    queries = model.heads * model.head_size / one.tensor
    keys = model.key_value_heads * model.head_size / one.tensor
    inner = model.intermediate_size / one.tensor * (4 if model.activation == "swiglu" else 2)
    numbers = one.tokens * (2 * queries + 2 * keys + inner) * one.number
    found = 2 * norm_bytes(model, model.hidden_size, one) + numbers
    found += one.tokens * model.heads / one.tensor * FP32  # log-sum-exp
    if model.qk_norm:
        found += norm_bytes(model, queries + keys, one) - one.tokens * (queries + keys) * one.number
    if one.masks:
        found += one.rows * one.length**2 * one.number
    return found


def norm_bytes(model: ModelConfig, width: float, one: Pass) -> float:
    """Input and output of a norm over `width` numbers of each token, and on a CPU what it has normalised."""
    tensors = 3 if one.cpu and model.norm == "rmsnorm" else 2
    return one.tokens * (tensors * width * one.number + FP32)


def working_bytes(model: ModelConfig, one: Pass) -> float:
    """Gradients beside all that a block keeps, as it begins to go backward: of its result, and of what that is made of.

    From there on as much is let go of as is made.
    """
    return one.tokens * (model.intermediate_size / one.tensor + 2 * model.hidden_size) * one.number


def loss_bytes(config: TrainingConfig, one: Pass) -> float:
    """The most that stands in memory for logits and their gradients.

    Made whole: the logits' log-softmax, its gradient and that of the logits, in fp32. In chunks of the vocabulary: one
    chunk in fp32, or in the working precision where Triton computes; and the gradient of the hidden states in fp32.
    """
    from framework.model.loss import chunk_tokens

    if not config.predicts_tokens:
        return 0.0
    vocabulary, hidden = config.model.vocabulary_size, config.model.hidden_size
    logits = one.tokens * vocabulary
    chunk = min(logits, chunk_tokens(config.loss, vocabulary) * vocabulary)
    weight = vocabulary * hidden * one.number  # its gradient, which is whole before it is added to the others
    if one.masks:
        if logits <= chunk or config.kernels == "reference":
            return logits * (3 * FP32 + (0 if one.number == FP32 else one.number))
        return 2 * chunk * FP32 + one.tokens * hidden * FP32 + weight
    return chunk * one.number + one.tokens * hidden * (FP32 + one.number) + weight
