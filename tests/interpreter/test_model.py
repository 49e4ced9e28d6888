"""Models that attend with the Triton kernels: what torch's attention gives, whatever is put around it."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import kernels
from framework.config import LossConfig
from framework.model.loss import summed_losses
from kernels import attention_op
from tests.curves import assert_same_steps
from tests.launch import pretrain
from tests.model.shapes import CONFIGS, random_model, random_tokens

DOCUMENT = torch.tensor([[0] * 13 + [1] * 7, [0] * 20], dtype=torch.int32)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_gives_the_loss_and_the_gradients_of_the_reference(name):
    config = CONFIGS[name]
    tokens = random_tokens(config, 2, 20)
    found = {}
    for implementation in ("triton", "reference"):
        model = random_model(config)
        with kernels.use(implementation):
            total, _, _ = model(tokens, DOCUMENT, head=partial(summed_losses, labels_BT=tokens, config=LossConfig()))
        total.backward()
        found[implementation] = [total.detach(), *(parameter.grad for parameter in model.parameters())]
    largest = max(gradient.abs().max().item() for gradient in found["reference"][1:])
    for one, other in zip(*found.values(), strict=True):  # the gradient of a bias of keys is nothing but rounding
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * largest)


def problem():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 20, heads, 16, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    sink = torch.randn(4, generator=generator, requires_grad=True)
    return q, k, v, sink


def mixed(q, k, v, sink, document=DOCUMENT):
    output, lse = kernels.attention(q * 1.5, k, v, document=document, sink=sink, softcap=3.0, window=9, return_lse=True)
    return output.square().sum() + lse.sin().sum()


@pytest.mark.parametrize("options", ["plain", "everything"])
def test_the_operator_is_what_torch_expects_of_one(options):
    q, k, v, sink = problem()
    documents = kernels.documents(DOCUMENT)
    arguments = (q, k, v, None, None, None, False, 0, 0.3, 0.0)
    if options == "everything":
        arguments = (q, k, v, documents.first_BT, documents.end_BT, sink, True, 7, 0.3, 2.0)
    result = torch.library.opcheck(attention_op.attention, arguments)
    assert set(result.values()) == {"SUCCESS"}


def test_compiled_it_is_one_node_and_the_same_bits():
    leaves = problem()
    nodes = []

    def backend(graph, example):
        nodes.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph

    torch._dynamo.reset()
    with kernels.use("triton"):
        expected = torch.autograd.grad(mixed(*leaves), leaves)
        compiled = torch.compile(mixed, fullgraph=True, backend="aot_eager")
        found = torch.autograd.grad(compiled(*leaves), leaves)
        torch._dynamo.reset()
        torch.compile(mixed, fullgraph=True, backend=backend)(*leaves)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    (graph,) = nodes
    assert sum("attention" in str(target) for target in graph) == 1


def test_computed_twice_it_gives_the_same_bits():
    leaves = problem()
    with kernels.use("triton"):
        expected = torch.autograd.grad(mixed(*leaves), leaves)
        found = torch.autograd.grad(checkpoint(mixed, *leaves, use_reentrant=False), leaves)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_operations_are_counted_as_torch_counts_its_own():
    q, k, v, _ = problem()
    with kernels.use("triton"), FlopCounterMode(display=False) as counter:
        kernels.attention(q, k, v, window=5).sum().backward()
    whole = (2, 4, 20, 16)  # [batch, heads, time, head size]
    expected = sdpa_flop_count(whole, whole, whole) + sdpa_backward_flop_count(whole, whole, whole, whole)
    assert counter.get_total_flops() == expected


def test_autocast_is_followed():
    q, k, v, _ = problem()
    with kernels.use("triton"), torch.autocast("cpu", dtype=torch.bfloat16):
        output = kernels.attention(q, k, v.bfloat16())
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, kernels.attention(*(x.bfloat16() for x in (q, k, v))))
    output.float().sum().backward()
    assert q.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"dtype": torch.float64}, {}, "float16, float32, got torch.float64"),
        ({"head_size": 257}, {}, "up to 256, got 257"),
        ({}, {"scale": -1.0}, "above 0"),
    ],
)
def test_what_the_kernels_do_not_support_is_said(arguments, options, message):
    x = torch.zeros(1, 4, 2, arguments.get("head_size", 16), dtype=arguments.get("dtype", torch.float32))
    with kernels.use("triton"), pytest.raises(ValueError, match=message):
        kernels.attention(x, x, x, **options)


SHORT = ("run.stop_after=2", "batch.sequences=8", "validation.every=100")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param(
            *("stage3-recomputed", ("zero=stage3", "memory.activation_checkpointing=full", "model.sliding_window=9")),
            marks=pytest.mark.slow,
        ),
        pytest.param("stage2", ("zero=stage2",), marks=pytest.mark.slow),
        pytest.param("rows", ("zero=stage1", "parallel.sequence=2", "model.heads=4"), marks=pytest.mark.slow),
        pytest.param("layers", ("zero=stage1", "parallel.tensor=2", "model.heads=4"), marks=pytest.mark.slow),
    ],
)
def test_a_run_on_two_ranks_is_that_of_torchs_attention(runs, data, name, settings):
    curves = [
        pretrain(runs, data, f"{name}-{implementation}", *SHORT, *settings, f"kernels={implementation}", ranks=2)
        for implementation in ("triton", "sdpa")
    ]
    assert_same_steps(*curves)
