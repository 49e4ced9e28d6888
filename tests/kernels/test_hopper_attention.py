"""The Gluon kernel for Hopper, proved without one: emulated against float64, with planted mistakes, and compiled.

The emulator (tests/kernels/gluon_emulator.py) runs the kernel's source and sees numbers, races between partitions,
copies and products, wrong phases and deadlocks. The binary shows what the emulator does not model: registers, that the
warps of a partition agree before it arrives at a barrier, and that the assembler kept the order on which speed rests.
"""

import ast
import copy

import pytest
import torch

from kernels import attention_op, documents, reference
from tests.kernels.emulated_machine import DeadlockError, EmulationError
from tests.kernels.gluon_emulator import emulate
from tests.launch import ROOT

SOURCES = {name: (ROOT / "kernels" / f"{name}.py").read_text() for name in ("hopper_attention", "hopper_launch")}
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # relative, to nearest


def rows(*lengths):
    """Numbers of documents, a row for each list of lengths."""
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths])


def tensors(batch=1, queries=300, keys=None, heads=2, kv_heads=1, head_size=64, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(time, number):
        return torch.randn(batch, time, number, head_size, generator=generator).to(dtype)

    keys = keys or queries
    return draw(queries, heads), draw(keys, kv_heads), draw(keys, kv_heads)


def fused(batch=2, time=200, heads=3, head_size=64, dtype=torch.bfloat16):
    """q, k and v as one projection gives them: views with steps of their own."""
    whole = torch.randn(batch, time, 3, heads, head_size, generator=torch.Generator().manual_seed(1)).to(dtype)
    return whole.unbind(2)


def run(module, q, k, v, *, causal=True, window=0, softcap=0.0, document=None, sink=None, scale=None):
    scale = scale or q.shape[-1] ** -0.5
    assert not module.obstacle(q, k, v, scale=scale)
    first, end = (None, None) if document is None else documents(document)
    return module.forward(q, k, v, first, end, sink, causal=causal, window=window, scale=scale, softcap=softcap)


def check(results, q, k, v, *, causal=True, window=0, softcap=0.0, document=None, sink=None, scale=None):
    """Against float64, within what rounding allows.

    The probabilities are rounded before they meet the values, and the output at the end, each by at most u relative:
    u (sum of p |v| + |o|). A float16 probability below 2^-14 is off by up to 2^-25 instead. In fp32 everything else is
    off by the length of its sums x 2^-24 relative, for which 2^-13 of the same scale is ample.
    """
    (output, lse), dtype = results, q.dtype
    options = {"causal": causal, "window": window, "softcap": softcap, "document": document}
    options |= {"scale": scale or q.shape[-1] ** -0.5, "sink": None if sink is None else sink.double()}
    expected, expected_lse = reference.attention(q.double(), k.double(), v.double(), **options)
    magnitude, _ = reference.attention(q.double(), k.double(), v.double().abs(), **options)
    bound = (ROUNDING[dtype] + 2.0**-13) * (magnitude + expected.abs()) * 1.01
    bound += k.shape[1] * 2.0**-25 * v.double().abs().max()
    assert output.is_contiguous()
    assert output.dtype == dtype
    assert ((output.double() - expected).abs() <= bound).all()  # no NaN passes
    torch.testing.assert_close(lse.double(), expected_lse.double(), rtol=2.0**-16, atol=2.0**-16)


CASES = {
    "causal": ({}, {}),
    "bidirectional": ({"queries": 200, "heads": 1}, {"causal": False}),
    "head size 128": ({"head_size": 128}, {}),
    "head size 128, float16": ({"head_size": 128, "dtype": torch.float16, "queries": 257}, {}),
    "grouped queries": ({"heads": 6, "kv_heads": 2, "queries": 130, "batch": 2}, {}),
    "one token": ({"queries": 1}, {}),
    "decoding": ({"queries": 1, "keys": 300, "batch": 2}, {}),
    "last positions": ({"queries": 70, "keys": 333}, {}),
    "more queries than keys": ({"queries": 300, "keys": 140}, {}),
    "more queries than keys, both ways": ({"queries": 150, "keys": 40}, {"causal": False}),
    "window": ({"queries": 520, "heads": 1}, {"window": 150}),
    "window of one": ({"queries": 140}, {"window": 1}),
    "window, last positions": ({"queries": 70, "keys": 500}, {"window": 33}),
    "documents": ({"batch": 2}, {"document": rows([1, 130, 60, 109], [300])}),
    "documents both ways": ({"batch": 2}, {"document": rows([50, 50, 200], [299, 1]), "causal": False}),
    "documents and window": ({"queries": 400}, {"document": rows([270, 130]), "window": 100}),
    "soft cap": ({"queries": 140}, {"softcap": 3.0, "scale": 1.0}),
    "sink": ({"queries": 200}, {"sink": torch.tensor([2.5, -30.0])}),
    "sink of rows that see nothing": ({"queries": 200, "keys": 40}, {"sink": torch.tensor([0.5, 3.0])}),
    "all": (
        {"queries": 300, "heads": 4, "kv_heads": 2, "head_size": 128, "dtype": torch.float16},
        {"document": rows([33, 267]), "window": 129, "softcap": 10.0, "sink": torch.tensor([0.0, 1.0, -1.0, 9.0])},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_attention_in_any_order_of_events(name):
    shape, options = CASES[name]
    q, k, v = tensors(**shape)
    results = [run(emulate(SOURCES, seed), q, k, v, **options) for seed in range(2)]
    check(results[0], q, k, v, **options)
    for mine, other in zip(*results, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_it_computes_attention_of_any_shape(seed):
    draw = torch.Generator().manual_seed(seed)

    def among(*values):
        return values[int(torch.randint(len(values), (), generator=draw))]

    causal = among(True, True, False)
    queries = among(1, 63, 64, 65, 128, 129, 300, 383, 511)
    keys = among(queries, queries, 1, 127, 128, 129, 400)
    kv_heads = among(1, 2, 3)
    shape = {"batch": among(1, 2), "queries": queries, "keys": keys, "kv_heads": kv_heads, "seed": seed}
    shape |= {"heads": kv_heads * among(1, 2, 5), "head_size": among(64, 128), "dtype": among(*ROUNDING)}
    options = {"causal": causal, "softcap": among(0.0, 5.0), "window": among(0, 1, 60, 200) if causal else 0}
    options["sink"] = among(None, torch.randn(shape["heads"], generator=draw))
    if queries == keys and among(True, False):
        starts = torch.rand(shape["batch"], queries, generator=draw) < among(0.005, 0.05)
        options["document"] = starts.cumsum(1)
    q, k, v = tensors(**shape)
    check(run(emulate(SOURCES, seed), q, k, v, **options), q, k, v, **options)


def test_views_are_read_where_they_lie():
    q, k, v = fused()
    check(run(emulate(SOURCES), q, k, v), q, k, v)


def test_what_a_masked_key_holds_does_not_matter():
    q, k, v = tensors(queries=260)
    k[:, 130:], v[:, 130:] = 100.0, -50.0
    document = rows([130, 130])
    check(run(emulate(SOURCES), q, k, v, document=document), q, k, v, document=document)


def test_the_cost_follows_the_documents():
    """Blocks of keys that are fetched: 128 queries of one document see one; the 2nd to 4th of a causal row 2 to 4."""
    q, k, v = tensors(queries=512, heads=1)
    fetched = {}
    for name, document in (("one", None), ("four", rows([128] * 4))):
        module = emulate(SOURCES)
        run(module, q, k, v, document=document)
        fetched[name] = len(module.fetched) - 4 * 2  # two consumers have their queries of each of four tiles
    assert fetched == {"one": 2 * (1 + 2 + 3 + 4), "four": 2 * 4}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda q, k, v: (q.float(), k.float(), v.float()), "float32"),
        (lambda q, k, v: (q[..., :32], k[..., :32], v[..., :32]), "32; it must be 64 or 128"),
        (lambda q, k, v: (q, k.transpose(1, 3).contiguous().transpose(1, 3), v), "k must begin"),
        (lambda q, k, v: (q, k, v[:, :1].expand(-1, 140, -1, -1)), "v must begin"),
        (lambda q, k, v: (q[:0], k[:0], v[:0]), "nothing"),
    ],
)
def test_what_it_cannot_take_is_told(changed, message):
    module = emulate(SOURCES)
    assert message in module.obstacle(*changed(*tensors(queries=140)), scale=0.1)
    assert "positive" in module.obstacle(*tensors(queries=140), scale=0.0)


# ------------------------------------------------------------------------------- planted mistakes


TREE = ast.parse(SOURCES["hopper_attention"])


def statements(tree):
    """Lists of statements with the place of each that synchronises."""
    for node in ast.walk(tree):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            for place, statement in enumerate(body if isinstance(body, list) else ()):
                if isinstance(statement, ast.Expr | ast.Assign) and isinstance(statement.value, ast.Call):
                    yield body, place, ast.unparse(statement.value.func), statement.value


def mistakes():
    """Each way to spoil one line of the kernel's synchronisation: its name, and the spoilt source."""

    def plant(name, number, change):
        tree = copy.deepcopy(TREE)
        body, place, _, call = list(statements(tree))[number]
        line = f"{body[place].lineno}: {ast.unparse(call)}"
        change(body, place, call)
        return pytest.param(ast.unparse(ast.fix_missing_locations(tree)), id=f"{name}, line {line[:90]}")

    def remove(body, place, call):
        body[place] = ast.Pass()

    def early(body, place, call):
        body[place - 1], body[place] = body[place], body[place - 1]

    def other_phase(body, place, call):
        call.args[1] = ast.parse(f"({ast.unparse(call.args[1])}) ^ 1", mode="eval").body

    def other_tile(operand):
        def change(body, place, call):
            find = (n for n in ast.walk(call.args[operand]) if isinstance(n, ast.Call) and ".index" in ast.unparse(n))
            index = next(n for n in find if n.func.attr == "index")
            index.args[0] = ast.parse(f"1 - ({ast.unparse(index.args[0])}) % 2", mode="eval").body

        return change

    def less(body, place, call):
        call.args[0] = ast.Constant(call.args[0].value + 1)

    for number, (_, _, function, call) in enumerate(statements(TREE)):
        turns = "turns" in ast.unparse(call)  # who goes first is a matter of speed: the numbers stay right
        if function in ("mbarrier.expect", "mbarrier.arrive", "fence_async_shared", "tma.store_wait"):
            yield plant("missing", number, remove)
        if function == "mbarrier.arrive" and not turns:
            yield plant("too early", number, early)
        if function == "mbarrier.wait" and not turns:
            yield plant("missing", number, remove)
            yield plant("wrong phase", number, other_phase)
        if function == "fetch":
            yield plant("wrong tile", number, other_tile(3))
            yield plant("wrong barrier", number, other_tile(2))
        if function == "warpgroup_mma_wait":
            yield plant("missing", number, remove)
            yield plant("too little", number, less)


def outcome(source, seed=0):
    """Runs a problem on which rings turn over and programs take several tiles; raises what the emulator finds."""
    q, k, v = tensors(queries=640, heads=2, head_size=128)
    check(run(emulate({**SOURCES, "hopper_attention": source}, seed), q, k, v), q, k, v)


@pytest.mark.parametrize("source", list(mistakes()))
def test_a_planted_mistake_is_caught(source):
    with pytest.raises((EmulationError, AssertionError)):
        outcome(source)


def test_the_planted_mistakes_are_the_only_ones():
    outcome(ast.unparse(TREE))


def test_a_deadlock_is_told_with_who_waits_for_what():
    source = SOURCES["hopper_attention"].replace("mbarrier.arrive(turns.index(1 - WHO))", "pass")
    with pytest.raises(DeadlockError, match="_consume 1 waits for parity 0 of barrier"):
        outcome(source)


def test_through_the_operator_what_it_cannot_take_is_said():
    q = torch.zeros(1, 4, 2, 64)
    with pytest.raises(ValueError, match=r"cannot take these tensors: the dtype is torch.float32; .*use\('triton'\)"):
        attention_op.attention(q, q, q, None, None, None, True, 0, 1.0, 0.0, hopper=True)
