"""What a forward and a backward pass take on a GPU, as torch's allocator counts it, against what a plan says of them.

With torch alone: neither DeepSpeed nor Hydra is needed. What ZeRO adds is compared on CPU ranks, in `tests/planning`.
"""

from functools import partial

import pytest
import torch

pytestmark = pytest.mark.gpu

TENTH = 0.1


def config_of(policy):
    from framework.config import ClusterConfig, DataConfig, MemoryConfig, ModelConfig, PrecisionConfig, PretrainConfig

    config = PretrainConfig(
        data=DataConfig(sequence_length=2048),
        memory=MemoryConfig(activation_checkpointing=policy),
        precision=PrecisionConfig("bf16"),
        cluster=ClusterConfig(device="gpu"),
    )
    shape = ModelConfig(
        *(32000, 1024, 8, 16, 4), head_size=64, intermediate_size=2816, tied_embeddings=False, maximum_positions=2048
    )
    for name, value in vars(shape).items():
        setattr(config.model, name, value)
    return config


@pytest.mark.parametrize("policy", ["none", "every_n", "full"])
def test_memory_of_a_pass_is_as_planned(place, policy):
    from framework.model.loss import summed_losses
    from framework.model.transformer import Transformer, initialize
    from framework.planning.activations import block_bytes, kept_bytes, loss_bytes, pass_of, working_bytes
    from framework.planning.parameters import parameters_of
    from framework.training.execution.recomputation import recompute_activations

    if place.tiny:
        pytest.skip("the interpreter has no allocator of its own")
    config, rows = config_of(policy), 4
    model = Transformer(config.model)
    initialize(model, config.model, seed=0)
    model = model.to(place.device, torch.bfloat16)
    recompute_activations(model.blocks, config.memory)
    parameters = parameters_of(config, {name: tuple(p.shape) for name, p in model.named_parameters()})
    tokens = torch.randint(config.model.vocabulary_size, (rows, config.data.sequence_length), device=place.device)
    document = torch.zeros_like(tokens, dtype=torch.int32)
    head = partial(summed_losses, labels_BT=tokens, config=config.loss)
    model(tokens, document, head=head)[0].backward()  # what libraries keep for themselves is there from now on

    before = torch.cuda.memory_allocated(place.device)
    assert before == pytest.approx(2 * 2 * parameters.trained, rel=TENTH)  # weights and gradients
    torch.cuda.reset_peak_memory_stats(place.device)
    loss = model(tokens, document, head=head)[0]
    one = pass_of(config, rows)
    kept = kept_bytes(config, parameters, one, policy)
    assert kept == pytest.approx(torch.cuda.memory_allocated(place.device) - before, rel=TENTH)
    loss.backward()
    block = 0.0 if policy == "none" else block_bytes(config.model, one)
    most = kept + max(loss_bytes(config, one), block + working_bytes(config.model, one))
    assert most == pytest.approx(torch.cuda.max_memory_allocated(place.device) - before, rel=TENTH)
