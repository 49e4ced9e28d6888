"""What answering with a model takes: memory for weights and for keys and values, and time for prompts and answers.

A prompt is read at once, by products of whole matrices: its time follows from operations and `cluster.mfu`. An answer
is written token by token; each step reads all weights and all keys and values that there are, so that at small batches
it takes as long as memory takes to give them (Pope et al. 2022, arXiv:2211.05102, section 2). A step is at least as
long as the longer of reading and computing; real servers need more.
"""

from dataclasses import dataclass, replace

from framework.config import ModelConfig, PlanConfig
from framework.config.plan import NUMBER_BYTES
from framework.model.arithmetic import count_parameters, forward_flops_per_token
from framework.planning.cost import Cost, cost_of
from framework.planning.plan import memory_limit

HALF = 2  # bytes of a number of bf16, in which hidden states are, and what is not held in fewer bits


@dataclass(frozen=True)
class InferencePlan:
    """Of one GPU, or of the group of GPUs that shares layers; `replicas` of these work side by side.

    Attributes:
        parameters: of the model.
        replicas: how often the model stands in memory.
        weight_bytes: on each GPU.
        cache_bytes_per_token: keys and values of a token, on each GPU.
        cache_bytes_per_sequence: of a prompt and its answer, whole: the cache is as long, whatever a window sees.
        working_bytes: of the widest hidden states and the logits, while prompts are read one at a time.
        batch: sequences that are answered at a time.
        largest_batch: most that fit; None where the memory of a GPU is unknown.
        bytes, limit: needed on a GPU, and what its tensors may take.
        fits: None where the memory of a GPU is unknown.
        prefill_seconds: to read one prompt.
        step_seconds: to write a token of every sequence; None where the bandwidth of memory is unknown, or it does
            not fit.
        bound_by: memory | computation.
        tokens_per_second: written for one sequence.
        total_tokens_per_second: by all replicas, in writing alone.
        answers_per_second: of all replicas, prompts included.
        cost: of a million tokens written, prompts included.
    """

    parameters: int
    replicas: int
    weight_bytes: float
    cache_bytes_per_token: float
    cache_bytes_per_sequence: float
    working_bytes: float
    batch: int
    largest_batch: int | None
    bytes: float
    limit: float | None
    fits: bool | None
    prefill_seconds: float
    step_seconds: float | None
    bound_by: str | None
    tokens_per_second: float | None
    total_tokens_per_second: float | None
    answers_per_second: float | None
    cost: Cost | None


def plan_inference(config: PlanConfig) -> InferencePlan:
    """As `config.inference` asks, on the configured cluster."""
    model, asked, cluster, tensor = config.model, config.inference, config.cluster, config.parallel.tensor
    length = asked.prompt_tokens + asked.output_tokens
    weights = weight_bytes(model, asked.weights, tensor)
    per_token = cache_bytes(model, asked.cache, tensor)
    working = HALF * (asked.prompt_tokens * (model.hidden_size + 3 * model.intermediate_size / tensor))
    working += 3 * 4 * model.vocabulary_size  # logits of the last token, their softmax and its sorted copy, in fp32
    limit = memory_limit(cluster)
    largest = None if limit is None else max(0, int((limit - weights - working) // (per_token * length)))
    batch = asked.batch or largest or 1
    needed = weights + working + batch * per_token * length
    prefill = asked.prompt_tokens * forward_flops_per_token(model, asked.prompt_tokens, predicts=False)
    prefill /= cluster.tflops(asked.weights) * 1e12 * cluster.mfu * tensor
    fits = None if limit is None else needed <= limit
    step, bound = (
        (None, None)
        if fits is False
        else _step(config, weights, per_token, batch, asked.prompt_tokens + asked.output_tokens / 2)
    )
    replicas = cluster.gpus // tensor
    seconds = None if step is None else batch * prefill + asked.output_tokens * step  # of a batch of answers
    answers = None if seconds is None else replicas * batch / seconds
    hours = None if answers is None else cluster.gpus * 1e6 / (answers * asked.output_tokens) / 3600
    return InferencePlan(
        parameters=count_parameters(model).total,
        replicas=replicas,
        weight_bytes=weights,
        cache_bytes_per_token=per_token,
        cache_bytes_per_sequence=per_token * length,
        working_bytes=working,
        batch=batch,
        largest_batch=largest,
        bytes=needed,
        limit=limit,
        fits=fits,
        prefill_seconds=prefill,
        step_seconds=step,
        bound_by=bound,
        tokens_per_second=None if step is None else 1 / step,
        total_tokens_per_second=None if step is None else replicas * batch / step,
        answers_per_second=answers,
        cost=None if hours is None else cost_of(hours, cluster),
    )


def tensor_that_fits(config: PlanConfig) -> int | None:
    """The fewest GPUs that fit if they share layers; None where no group within a node does."""
    for tensor in (2**power for power in range(1, 1 + config.cluster.gpus_per_node.bit_length())):
        shared = config.model.heads % tensor == 0 and config.model.key_value_heads % tensor == 0
        if config.parallel.tensor < tensor <= config.cluster.gpus_per_node and shared:
            changed = replace(
                config,
                parallel=replace(config.parallel, tensor=tensor),
                cluster=replace(config.cluster, gpus=max(tensor, config.cluster.gpus)),
            )
            if plan_inference(changed).fits:
                return tensor
    return None


def weight_bytes(model: ModelConfig, dtype: str, tensor: int = 1) -> float:
    """Of the weights on one GPU; in less than 16 bits only the blocks' matrices are, all else is in bf16."""
    count = count_parameters(model)
    rest = NUMBER_BYTES[dtype] if dtype == "fp32" else HALF
    return count.embedding * rest + count.non_embedding * NUMBER_BYTES[dtype] / tensor


def cache_bytes(model: ModelConfig, dtype: str, tensor: int = 1) -> float:
    """Of the keys and values of a token on one GPU; fewer key-value heads (arXiv:2305.13245) make it smaller."""
    return 2 * model.layers * model.key_value_heads / tensor * model.head_size * NUMBER_BYTES[dtype]


def _step(
    config: PlanConfig, weights: float, per_token: float, batch: int, length: float
) -> tuple[float | None, str | None]:
    """Seconds to write a token of every sequence while they are `length` long, and what takes them."""
    model, cluster = config.model, config.cluster
    if not cluster.memory_gb_per_second:
        return None, None
    table = 0 if model.tied_embeddings else model.vocabulary_size * model.hidden_size * HALF  # of which a row is read
    seen = min(length, model.sliding_window or length)
    reading = (weights - table + batch * per_token * seen) / (cluster.memory_gb_per_second * 1e9)
    flops = batch * forward_flops_per_token(model, round(seen))
    computing = flops / (cluster.tflops(config.inference.weights) * 1e12 * cluster.mfu * config.parallel.tensor)
    return (reading, "memory") if reading >= computing else (computing, "computation")
