"""One program of a GPU with asynchronous copies and matrix products, run under a schedule that wants to find mistakes.

Used by tests/kernels/gluon_emulator.py, which says what is modelled and what is not.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Stamp = tuple[str, int]  # an actor, and the how-manieth of its accesses


class EmulationError(Exception):
    """The kernel did what a GPU answers with wrong numbers or a hang."""


class RaceError(EmulationError):
    """Two accesses to shared memory of which one changes it, and nothing orders them."""


class DeadlockError(EmulationError):
    """Everybody waits."""


class _StoppedError(BaseException):
    """Unwinds the other partitions when one has failed."""


# ------------------------------------------------------------------------------------ who acts


@dataclass
class Actor:
    """Who accesses shared memory; `clock` counts the accesses of each actor that are known to be over."""

    name: str
    clock: dict[str, int]

    def knows(self, stamp: Stamp) -> bool:
        return self.clock.get(stamp[0], 0) >= stamp[1]

    def learn(self, clock: dict[str, int]) -> None:
        for name, time in clock.items():
            self.clock[name] = max(time, self.clock.get(name, 0))

    def stamp(self) -> Stamp:
        self.clock[self.name] = self.clock.get(self.name, 0) + 1
        return self.name, self.clock[self.name]


@dataclass
class Task(Actor):
    """A copy or a matrix product under way; it ends after `before`, and its end does `finish`."""

    finish: Callable[[], None]
    before: "Task | None" = None
    done: bool = False


class Partition(Actor):
    """Warps with one program of their own: a thread, which goes on when the machine says so."""

    def __init__(self, machine: "Machine", name: str, clock: dict[str, int], work: Callable[[], None]) -> None:
        super().__init__(name, dict(clock))
        self.products: list[Task] = []  # asked for and not waited for
        self.stores: list[Task] = []
        self.ready: Callable[[], bool] = lambda: True
        self.waits_for = ""
        self.ended = False
        self.error: BaseException | None = None
        self.haste = machine.random.choice([0.05, 0.3, 1.0])
        self.go = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(machine, work), daemon=True)
        self.thread.start()

    def _run(self, machine: "Machine", work: Callable[[], None]) -> None:
        self.go.acquire()
        machine.local.me = self
        try:
            if not machine.stopped:
                work()
                if self.stores:
                    raise EmulationError(f"{self.name} ends while {self.stores[0].name} may still read shared memory")
        except BaseException as error:
            self.error = error
        self.ended = True
        machine.turn_over.release()


# ---------------------------------------------------------------------------------- shared memory


@dataclass
class Tile:
    """A piece of shared memory that is read and written as a whole."""

    name: str
    data: Tensor
    written: Stamp | None = None
    unfenced: bool = False  # written by an ordinary store that the accelerator may not see yet
    reads: list[Stamp] = field(default_factory=list)

    def read(self, actor: Actor, *, asynchronous: bool) -> None:
        if self.written and not actor.knows(self.written):
            raise RaceError(f"{actor.name} reads {self.name}; nothing says that {self.written[0]} has written it")
        if asynchronous and self.unfenced:
            raise RaceError(f"{actor.name} reads {self.name}, which was stored without a fence")
        self.reads.append(actor.stamp())

    def write(self, actor: Actor, *, asynchronous: bool) -> None:
        for stamp in [*self.reads, *([self.written] if self.written else [])]:
            if not actor.knows(stamp):
                raise RaceError(f"{actor.name} writes {self.name}; nothing says that {stamp[0]} is done with it")
        self.written, self.reads, self.unfenced = actor.stamp(), [], not asynchronous


class Barrier:
    """An mbarrier: a phase is over when its arrivals and bytes are complete, and who waits for it then knows what
    those who arrived knew."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = self.pending = self.bytes = self.phase = 0
        self.gathered = Actor(name, {})
        self.released: dict[str, int] = {}
        self.unfenced = True

    def set_up(self, count: int) -> None:
        self.count = self.pending = count

    def expect(self, count: int) -> None:
        self.bytes += count

    def arrive(self, actor: Actor) -> None:
        if not self.pending:
            raise EmulationError(f"{actor.name} arrives at {self.name}, which has had its {self.count} arrivals")
        self.gathered.learn(actor.clock)
        self.pending -= 1
        self._end_phase()

    def receive(self, task: Task, count: int) -> None:
        """The last byte of a copy is there."""
        self.gathered.learn(task.clock)
        self.bytes -= count
        self._end_phase()

    def is_over(self, parity: int) -> bool:
        return self.phase & 1 != parity

    def _end_phase(self) -> None:
        if not self.pending and not self.bytes:
            self.phase += 1
            self.pending = self.count
            self.released, self.gathered = self.gathered.clock, Actor(self.name, {})


# ------------------------------------------------------------------------------------ the machine


class Machine:
    """A program of a grid: its partitions, what they have under way, and who goes next."""

    def __init__(self, seed: int, program: int, programs: int) -> None:
        self.random = random.Random(f"{seed} {program}")
        self.eagerness = self.random.choice([0.02, 0.5, 5.0])  # of what is under way to end
        self.program, self.programs = program, programs
        self.partitions: list[Partition] = []
        self.tasks: list[Task] = []
        self.begun = 0
        self.tiles: list[Tile] = []
        self.barriers: list[Barrier] = []
        self.local = threading.local()
        self.turn_over = threading.Semaphore(0)
        self.stopped = False

    @property
    def me(self) -> Partition:
        """The partition whose thread asks."""
        return self.local.me

    def start(self, name: str, clock: dict[str, int], work: Callable[[], None]) -> Partition:
        self.partitions.append(Partition(self, name, clock, work))
        return self.partitions[-1]

    def pause(self, ready: Callable[[], bool] = lambda: True, waits_for: str = "") -> None:
        """Lets the others go on, at least until `ready`."""
        me = self.me
        me.ready, me.waits_for = ready, waits_for
        self.turn_over.release()
        me.go.acquire()
        if self.stopped:
            raise _StoppedError

    def begin(self, kind: str, finish: Callable[[], None], before: Task | None = None) -> Task:
        """Something under way, which knows what its partition knows."""
        self.begun += 1
        self.tasks.append(Task(f"{kind} {self.begun} of {self.me.name}", dict(self.me.clock), finish, before))
        return self.tasks[-1]

    def wait(self, tasks: list[Task], outstanding: int, kind: str) -> None:
        """Until all but the last `outstanding` of the partition's tasks are done, which it then forgets."""
        awaited = tasks[: len(tasks) - outstanding]
        self.pause(lambda: all(task.done for task in awaited), kind)
        for task in awaited:
            self.me.learn(task.clock)
            tasks.remove(task)

    def run(self) -> None:
        """Until all partitions have ended and nothing is under way; raises what the first to fail raised."""
        while any(not partition.ended for partition in self.partitions) or self.tasks:
            able = [partition for partition in self.partitions if not partition.ended and partition.ready()]
            endable = [task for task in self.tasks if task.before is None or task.before.done]
            if not able and not endable:
                alive = [partition for partition in self.partitions if not partition.ended]
                everybody = "; ".join(f"{partition.name} waits for {partition.waits_for}" for partition in alive)
                self._stop()
                raise DeadlockError(everybody)
            weights = [partition.haste for partition in able] + [self.eagerness] * len(endable)
            chosen = self.random.choices([*able, *endable], weights)[0]
            if isinstance(chosen, Task):
                chosen.finish()
                chosen.done = True
                self.tasks.remove(chosen)
                continue
            chosen.go.release()
            self.turn_over.acquire()
            if chosen.error:
                self._stop()
                raise chosen.error

    def _stop(self) -> None:
        self.stopped = True
        for partition in self.partitions:
            partition.go.release()
            partition.thread.join()


def poison(tensor: Tensor) -> None:
    """What must not be read: NaN, or the most negative integer."""
    tensor.fill_(float("nan") if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)
