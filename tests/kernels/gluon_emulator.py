"""Runs a Gluon kernel for Hopper on the CPU, asynchrony included: what is not waited for is not there.

Triton's interpreter knows no Gluon, and a kernel whose point is who waits for whom is not proved by arithmetic alone.
`emulate` executes a kernel's source with stand-ins for Triton and Gluon, so that its very functions, launcher included,
run as Python, with torch's tensors for Gluon's:

- *Partitions* of a warp specialisation are threads, of which one runs at a time. At every operation on shared memory,
  barriers, copies and products a scheduler decides who goes on, and whether something under way ends now. `seed` draws
  its choices, and also who is slow and whether copies and products end early or late.
- *Copies* by the tensor memory accelerator fill their destination with NaN until they end. Beyond the tensor's ends
  they read zeros and write nothing. Barriers count arrivals and bytes, and complete phases as the hardware does.
- *Matrix products* read shared memory when they run, not when they are asked for; what they return cannot be used
  before a wait that covers it and is given it.
- *Races* are found by vector clocks (Fidge 1988; Mattern 1989), so in every schedule: each access to shared memory,
  those of copies and products included, must be ordered after the last conflicting one by a chain of arrivals and
  waits. The accelerator reads what a program stored, and uses barriers it made, only after `fence_async_shared`.
- *A deadlock* is told with who waits for what.
- *Global memory*: accesses out of bounds, and numbers written twice, are errors; outputs are NaN until written.
- *Integers* are 32 bits wide and never divided when negative, where Triton rounds another way than Python.

Not modelled: what happens inside a partition, whose warps and threads are one here (that they agree before one of them
arrives is seen in the compiled code), layouts (the compiler checks them), registers and time.
"""

import builtins
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.kernels.emulated_machine import Barrier, EmulationError, Machine, Task, Tile, poison


def emulate(sources: dict[str, str], seed: int = 0) -> SimpleNamespace:
    """What the last of these modules of `kernels` defines; sources by name, each may import those before it.

    `fetched` is added to it: the corner of each tile that was copied into shared memory, in order.
    """
    emulation = _Emulation(seed)
    stand_in = {**emulation.modules(), "kernels": SimpleNamespace()}

    def import_(name: str, scope: Any = None, local: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        root, *path = name.split(".")
        if root not in stand_in:
            return builtins.__import__(name, scope, local, fromlist, level)
        module = stand_in[root]
        for part in path if fromlist else ():
            module = getattr(module, part)
        return module

    for name, source in sources.items():
        scope = {"__name__": name, "__builtins__": {**vars(builtins), "__import__": import_, "range": _range}}
        exec(compile(source, f"<emulated {name}>", "exec"), scope)
        defined = {key: value for key, value in scope.items() if not key.startswith("__")}
        setattr(stand_in["kernels"], name, SimpleNamespace(**defined))
    return SimpleNamespace(**defined, fetched=emulation.fetched)


# --------------------------------------------------------------------------------------- numbers


class Int(int):
    """A 32-bit integer of a kernel."""

    bits = 32

    def to(self, dtype: torch.dtype) -> "Int":
        return {torch.int32: Int, torch.int64: Long}[dtype](self)


class Long(Int):
    """A 64-bit one."""

    bits = 64


def _arithmetic(name: str) -> Callable[[Int, Any], Any]:
    plain = getattr(int, name)

    def compute(left: Int, right: Any) -> Any:
        result = plain(left, right)
        if result is NotImplemented:  # a tensor or a pointer, which knows better
            return result
        kind = Long if Long in (type(left), type(right)) else Int
        if ("div" in name or "mod" in name) and (left < 0 or right < 0):
            raise EmulationError(f"{name}({left}, {right}): Triton rounds to zero, Python down")
        if not -(2 ** (kind.bits - 1)) <= result < 2 ** (kind.bits - 1):
            raise EmulationError(f"{name}({left}, {right}) overflows")
        return kind(result)

    return compute


for _name in ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"):
    for _side in ("", "r"):
        setattr(Int, f"__{_side}{_name}__", _arithmetic(f"__{_side}{_name}__"))


def _range(*bounds: int) -> Iterator[Int]:
    return map(Int, builtins.range(*bounds))


class Pointer:
    """Into a tensor of global memory."""

    def __init__(self, tensor: Tensor, offset: Any = 0, written: Tensor | None = None) -> None:
        self.numbers, self.offset = tensor.view(-1), offset
        self.written = torch.zeros(tensor.numel(), dtype=torch.bool) if written is None else written

    def __add__(self, offset: Any) -> "Pointer":
        return Pointer(self.numbers, self.offset + offset, self.written)

    def places(self, mask: Any) -> Tensor:
        offsets = torch.as_tensor(self.offset)
        inside = offsets[mask] if mask is not None else offsets
        if inside.numel() and not (inside.min() >= 0 and inside.max() < self.numbers.numel()):
            raise EmulationError(f"access at {inside.tolist()} of {self.numbers.numel()} numbers")
        return inside.long()


class Descriptor:
    """A tensor as the tensor memory accelerator knows it."""

    def __init__(self, base: Tensor, shape: list[int], strides: list[int], block_shape: list[int], layout: Any) -> None:
        assert strides[-1] == 1
        assert not any(stride * base.element_size() % 16 for stride in strides[:-1])
        self.tensor = torch.as_strided(base, shape, strides, base.storage_offset())
        self.written = torch.zeros(shape, dtype=torch.bool)
        self.dtype, self.layout = base.dtype, layout
        nbytes = torch.Size(block_shape).numel() * base.element_size()
        self.block_type = SimpleNamespace(shape=block_shape, nbytes=nbytes)

    def inside(self, corner: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of a block that lies in the tensor: there, and in the block."""
        there, here = [], []
        for start, length, size in zip(corner, self.block_type.shape, self.tensor.shape, strict=True):
            first, last = max(start, 0), max(min(start + length, size), max(start, 0))
            there.append(slice(first, last))
            here.append(slice(first - start, last - start))
        return tuple(there), tuple(here)


# ---------------------------------------------------------------------------------- shared memory


class View:
    """A tile as seen after reshaping and permuting."""

    def __init__(self, machine: Machine, tile: Tile, look: Callable[[Tensor], Tensor] = lambda data: data) -> None:
        self.machine, self.tile, self.look = machine, tile, look
        self.shape, self.dtype = list(look(tile.data).shape), tile.data.dtype

    def reshape(self, shape: list[int]) -> "View":
        return View(self.machine, self.tile, lambda data: self.look(data).view(shape))

    def permute(self, order: tuple[int, ...]) -> "View":
        return View(self.machine, self.tile, lambda data: self.look(data).permute(order))

    def store(self, value: Tensor) -> None:
        assert list(value.shape) == self.shape
        assert value.dtype == self.dtype
        self.machine.pause()
        self.tile.write(self.machine.me, asynchronous=False)
        self.look(self.tile.data).copy_(value)


class Allocation:
    """Tiles or barriers, by number."""

    def __init__(self, shape: list[int], dtype: torch.dtype, parts: list[Any]) -> None:
        self.shape, self.dtype, self.parts = shape, dtype, parts

    def index(self, number: int) -> Any:
        if not 0 <= number < len(self.parts):
            raise EmulationError(f"part {number} of {len(self.parts)}")
        return self.parts[number]


class Product:
    """What a matrix product will give; its value is had from a wait alone."""

    def __init__(self) -> None:
        self.task: Task | None = None
        self.value: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        raise EmulationError(f"{name} of a matrix product that was not waited for")

    def __mul__(self, other: Any) -> Any:
        raise EmulationError("a matrix product that was not waited for is used")

    __rmul__ = __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __getitem__ = __mul__


# --------------------------------------------------------------------------------------- language


class _Kernel:
    """A function as `gluon.jit` makes it: called by others, or launched on a grid."""

    def __init__(self, emulation: "_Emulation", function: Callable[..., Any]) -> None:
        self.emulation, self.function, self.__name__ = emulation, function, function.__name__

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*arguments: Any, num_warps: int, maxnreg: int, **constants: Any) -> None:
            arguments = _device(arguments)
            for program in builtins.range(*grid):
                machine = self.emulation.machine = Machine(self.emulation.seed, program, *grid)
                machine.start("the program", {}, lambda: self.function(*arguments, **constants))
                machine.run()

        return launch


def _device(argument: Any) -> Any:
    """A launch's argument as the kernel gets it."""
    if isinstance(argument, tuple):
        return tuple(_device(part) for part in argument)
    if isinstance(argument, Tensor):
        return Pointer(argument)
    return Int(argument) if type(argument) is int else argument


class _Emulation:
    """The functions of Gluon that a kernel of ours uses, on the machine of the program that runs."""

    machine: Machine

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.fetched: list[tuple[int, ...]] = []

    def modules(self) -> dict[str, Any]:
        hopper = SimpleNamespace(
            mbarrier=SimpleNamespace(
                MBarrierLayout=lambda: "barriers", init=self.init, expect=self.expect, arrive=self.arrive,
                wait=self.wait,
            ),
            tma=SimpleNamespace(async_load=self.fetch, async_store=self.put, store_wait=self.store_wait),
            fence_async_shared=self.fence, warpgroup_mma=self.multiply, warpgroup_mma_wait=self.product_wait,
        )  # fmt: skip
        language = SimpleNamespace(
            constexpr=lambda value: value, static_range=builtins.range, nvidia=SimpleNamespace(hopper=hopper),
            **{name: getattr(torch, name) for name in ("int32", "int64", "float32", "exp2", "log2")},
            **{
                name: lambda *arguments, **options: (arguments, tuple(options.items()))
                for name in ("NVMMASharedLayout", "NVMMADistributedLayout", "SliceLayout", "DotOperandLayout")
            },
            program_id=lambda axis: Int(self.machine.program), num_programs=lambda axis: Int(self.machine.programs),
            arange=lambda start, stop, layout: torch.arange(start, stop, dtype=torch.int32),
            zeros=lambda shape, dtype, layout: torch.zeros(shape, dtype=dtype),
            full=lambda shape, value, dtype, layout: torch.full(shape, value, dtype=dtype),
            maximum=_either(torch.maximum, max), minimum=_either(torch.minimum, min), max=torch.amax, sum=torch.sum,
            where=torch.where, convert_layout=lambda value, layout: value, cdiv=lambda a, b: (a + (b - 1)) // b,
            load=_load, store=_store, allocate_shared_memory=self.allocate, warp_specialize=self.specialize,
        )  # fmt: skip
        gluon = SimpleNamespace(
            language=language, jit=lambda function: _Kernel(self, function),
            constexpr_function=lambda function: function,
            nvidia=SimpleNamespace(hopper=SimpleNamespace(TensorDescriptor=Descriptor)),
        )  # fmt: skip
        triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b), experimental=SimpleNamespace(gluon=gluon))
        return {"triton": triton, "torch": _TorchWithoutLuck()}

    def allocate(self, dtype: torch.dtype, shape: list[int], layout: Any) -> Allocation:
        machine, (number, *rest) = self.machine, shape
        if layout == "barriers":
            names = [f"barrier {len(machine.barriers) + i}" for i in builtins.range(number)]
            barriers = [Barrier(name) for name in names]
            machine.barriers += barriers
            return Allocation(shape, dtype, barriers)
        tiles = [Tile(f"tile {len(machine.tiles) + i}", torch.empty(rest, dtype=dtype)) for i in builtins.range(number)]
        machine.tiles += tiles
        for tile in tiles:
            poison(tile.data)
        return Allocation(shape, dtype, [View(machine, tile) for tile in tiles])

    def specialize(self, partitions: list[tuple[Any, tuple[Any, ...]]], warps: list[int], registers: list[int]) -> None:
        machine, (first, *others) = self.machine, partitions
        assert len(others) == len(warps) == len(registers)
        workers = [
            machine.start(f"{work.__name__} {i + 1}", machine.me.clock, lambda work=work, given=given: work(*given))
            for i, (work, given) in enumerate(others)
        ]
        first[0](*first[1])
        machine.pause(lambda: all(worker.ended for worker in workers), "the other partitions")

    def init(self, barrier: Barrier, count: int) -> None:
        barrier.set_up(count)

    def expect(self, barrier: Barrier, count: int) -> None:
        self.machine.pause()
        barrier.expect(count)
        barrier.arrive(self.machine.me)

    def arrive(self, barrier: Barrier) -> None:
        self.machine.pause()
        barrier.arrive(self.machine.me)

    def wait(self, barrier: Barrier, phase: int, pred: bool = True) -> None:
        if phase not in (0, 1):
            raise EmulationError(f"parity {phase} at {barrier.name}")
        if pred:
            self.machine.pause(lambda: barrier.is_over(phase), f"parity {phase} of {barrier.name}")
            self.machine.me.learn(barrier.released)

    def fence(self) -> None:
        self.machine.pause()
        mine = [tile for tile in self.machine.tiles if tile.written and tile.written[0] == self.machine.me.name]
        for fenced in [*mine, *self.machine.barriers]:
            fenced.unfenced = False

    def fetch(self, descriptor: Descriptor, corner: list[int], barrier: Barrier, view: View) -> None:
        assert view.shape == descriptor.block_type.shape
        assert view.dtype == descriptor.dtype
        self.machine.pause()
        self.fetched.append(tuple(corner))
        if barrier.unfenced:
            raise EmulationError(f"a copy arrives at {barrier.name}, which was made without a fence")

        def finish() -> None:
            there, here = descriptor.inside(corner)
            view.tile.data.zero_()
            view.tile.data[here] = descriptor.tensor[there]
            barrier.receive(task, descriptor.block_type.nbytes)

        task = self.machine.begin("copy", finish)
        view.tile.write(task, asynchronous=True)
        poison(view.tile.data)

    def put(self, descriptor: Descriptor, corner: list[int], view: View) -> None:
        self.machine.pause()

        def finish() -> None:
            there, here = descriptor.inside(corner)
            if descriptor.written[there].any():
                raise EmulationError(f"output at {corner} is written twice")
            descriptor.written[there] = True
            descriptor.tensor[there] = view.tile.data[here]

        task = self.machine.begin("store", finish)
        view.tile.read(task, asynchronous=True)
        self.machine.me.stores.append(task)

    def store_wait(self, pendings: int) -> None:
        self.machine.wait(self.machine.me.stores, pendings, "its stores")

    def multiply(self, a: Any, b: View, acc: Any, *, use_acc: bool = True, is_async: bool = False) -> Product:
        assert is_async
        self.machine.pause()
        me, product = self.machine.me, Product()

        def finish() -> None:
            left, right = (x.look(x.tile.data) if isinstance(x, View) else x for x in (a, b))
            product.value = left.float() @ right.float()
            if use_acc:
                product.value += acc.value if isinstance(acc, Product) else acc

        product.task = self.machine.begin("product", finish, me.products[-1] if me.products else None)
        for operand in (a, b):
            if isinstance(operand, View):
                operand.tile.read(product.task, asynchronous=True)
            elif isinstance(operand, Product):
                raise EmulationError("a matrix product that was not waited for is an operand of another")
        me.products.append(product.task)
        return product

    def product_wait(self, num_outstanding: int, deps: tuple[Any, ...]) -> Any:
        self.machine.wait(self.machine.me.products, num_outstanding, "its products")
        waiting = [id(task) for task in self.machine.me.products]
        results = tuple(x.value.clone() if isinstance(x, Product) and id(x.task) not in waiting else x for x in deps)
        return results[0] if len(results) == 1 else results


class _TorchWithoutLuck:
    """torch, but what it allocates without filling is NaN."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def empty(*arguments: Any, **options: Any) -> Tensor:
        tensor = torch.empty(*arguments, **options)
        poison(tensor)
        return tensor


def _either(of_tensors: Callable[..., Tensor], of_numbers: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def compute(left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Tensor):
                return of_tensors(one, torch.as_tensor(other, dtype=one.dtype))
        return of_numbers(left, right)

    return compute


def _load(pointer: Pointer) -> Any:
    numbers = pointer.numbers[pointer.places(None)]
    if numbers.dim():
        return numbers
    return numbers.item() if numbers.is_floating_point() else Int(numbers)


def _store(pointer: Pointer, value: Tensor, mask: Tensor) -> None:
    places = pointer.places(mask)
    if pointer.written[places].any():
        raise EmulationError("a number is written twice")
    pointer.written[places] = True
    pointer.numbers[places] = value[mask]
