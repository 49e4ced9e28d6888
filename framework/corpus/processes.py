"""Tasks of a pipeline in processes of this machine, which are missed when they die."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy

from datatrove.executor.local import LocalPipelineExecutor

from framework.errors import UserError


class ProcessExecutor(LocalPipelineExecutor):
    """datatrove's executor over `concurrent.futures`: its own pool waits for ever for a worker that was killed."""

    def run(self) -> None:
        """Run the tasks that are not completed; the first that fails ends the others.

        Raises:
            UserError: of a task, or a worker process died.
            RuntimeError: a task failed; the message is its traceback. With one worker: what the task raised.
        """
        waiting = self.get_incomplete_ranks()
        self.save_executor_as_json()
        if self.workers > 1:
            self._share(waiting)
            return
        for rank in waiting:
            deepcopy(self)._run_for_rank(rank)  # steps may keep what they learn in a task

    def _share(self, waiting: list[int]) -> None:
        """Deal the tasks to workers."""
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("forkserver")  # of a process that has threads, no fork is safe
        context.set_forkserver_preload(["framework.corpus.pipeline"])  # once, and not in every worker
        pool = ProcessPoolExecutor(self.workers, context, _begin, (pickle.dumps(self),))
        try:
            for task in as_completed([pool.submit(_work, rank) for rank in waiting]):
                task.result()
        except BaseException as error:
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "executor: a worker process died, for want of memory most likely; what was done stays done: "
                    "lower executor.workers and start again"
                ) from error
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_executor = b""  # of this worker, pickled: every task gets steps as new


def _begin(executor: bytes) -> None:
    """Make this process a worker, which ends with the process that started it."""
    global _executor
    _executor = executor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by that process
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(rank: int) -> None:
    """Run one task; an error travels as text, for not every exception survives pickling."""
    try:
        pickle.loads(_executor)._run_for_rank(rank)
    except UserError:
        raise
    except Exception:
        raise RuntimeError(traceback.format_exc()) from None
