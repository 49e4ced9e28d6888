"""What the watchdog makes of the signs of life of several ranks, and where it says a rank is."""

import sys
import threading

import pytest

from framework.training.survival.watchdog import Judge, Sign, verdict, where

TIMEOUT, INTERVAL = 100.0, 5.0


class Ranks:
    """Two ranks whose signs are looked at every interval; what changes between looks is up to the test."""

    def __init__(self):
        self.signs = [Sign(), Sign()]
        self.judge = Judge(2, TIMEOUT, INTERVAL)
        self.now = 0.0

    def look(self, times=1, speaking=(0, 1), working=()):
        for _ in range(times):
            self.now += INTERVAL
            for rank in speaking:
                self.signs[rank].looks += 1
            for rank in working:
                self.signs[rank].count += 1
            hangs = self.judge.look([Sign(**vars(sign)) for sign in self.signs], self.now)
        return hangs


def report(collective="", at="loop.py:1"):
    return {"at": at, "collective": collective, "stack": []}


def test_a_job_hangs_once_nobody_makes_progress_for_the_timeout():
    ranks = Ranks()
    assert not ranks.look(100, working=(0, 1))
    assert not ranks.look(20)
    assert ranks.look()


def test_one_rank_that_works_is_waited_for():
    assert not Ranks().look(100, working=(1,))


def test_an_activity_has_its_own_patience():
    ranks = Ranks()
    ranks.signs[1].patience = 3.0
    ranks.look(working=(0, 1))
    assert not ranks.look(60)
    assert ranks.look()
    ranks = Ranks()
    ranks.signs[0].patience = float("inf")
    assert not ranks.look(1000)


def test_a_rank_that_never_speaks_hangs_whatever_the_patience():
    ranks = Ranks()
    ranks.signs[0].patience = float("inf")
    ranks.look(working=(0, 1))
    assert not ranks.look(20, speaking=(0,), working=(0,))
    assert ranks.look(speaking=(0,), working=(0,))
    assert ranks.judge.hung(ranks.signs, ranks.now) == [1]


def test_a_rank_that_has_left_is_not_missed():
    ranks = Ranks()
    ranks.signs[1].left = True
    assert not ranks.look(100, speaking=(0,))


def test_what_one_rank_has_found_holds_for_all():
    ranks = Ranks()
    ranks.signs[1].report = report("all_reduce")
    assert ranks.look()


@pytest.mark.parametrize(
    ("reports", "hung"),
    [
        ((report("all_reduce"), report()), [1]),
        ((report(), report("barrier")), [0]),
        ((report("all_reduce"), report("broadcast")), [0, 1]),
        ((report(at="a:1"), report(at="a:1"), report(at="b:2")), [2]),  # waiting for a GPU, all but one
        ((report("all_reduce"), None), [1]),  # silent
    ],
)
def test_the_one_that_the_others_wait_for_is_the_hung_one(reports, hung):
    signs = [Sign(looks=1, report=found) for found in reports]
    judge = Judge(len(signs), TIMEOUT, INTERVAL)
    judge.look(signs, TIMEOUT)
    for rank, found in enumerate(reports):
        signs[rank] = Sign(looks=1 + bool(found), report=found)
    judge.look(signs, 2 * TIMEOUT)
    assert judge.hung(signs, 2 * TIMEOUT) == hung


def test_where_names_the_line_of_ours_and_the_stack():
    ready, leave = threading.Event(), threading.Event()

    def stuck():
        ready.set()
        leave.wait()

    thread = threading.Thread(target=stuck)
    thread.start()
    ready.wait()
    found = where(sys._current_frames()[thread.ident])
    leave.set()
    thread.join()
    assert found["collective"] == ""
    assert "leave.wait()" in "".join(found["stack"])


def test_the_verdict_names_rank_step_stack_and_collective():
    signs = [
        Sign(step=7, report=report("all_reduce", "training/engine.py:104, step")),
        Sign(step=7, activity="first step", report={**report(at="stream/loader.py:9, read"), "stack": ["  File x\n"]}),
        Sign(step=6),
    ]
    assert verdict(signs, [2], 5.0, ["a", "a", "b"])[0].startswith("hung: rank 2 on b, last heard of at step 6: silent")
    assert verdict(signs, [1, 2], 5.0, ["a", "a", "a"]) == [
        "hung: rank 1 at step 7 (first step): at stream/loader.py:9, read; its stack:",
        "  File x",
        "hung: rank 2, last heard of at step 6: silent, so it was stopped (SIGSTOP), or its machine is gone, or "
        "code that never lets Python run holds it",
        "rank 0 waits in all_reduce (step 7, training/engine.py:104, step)",
        "no progress for 5 s (guard.timeout): the job ends; started again it goes on from the newest checkpoint",
    ]
