"""`--jobs N --ray`: the pieces of work are trials of Ray Tune, whose Tuner places and runs them.

The Tuner starts the processes of the trials, reuses them, notices their deaths and ends them. The
command decides what a trial tries and whether it is pruned, so that a study has the same sampler,
pruner and journal as without Ray:

    hook of Ray Tune                the command's dealer
    ────────────────                ────────────────────
    Searcher.suggest                the next of pieces()
    Stopper, after each report      answer(piece, question)
    Searcher.on_trial_complete      tell(piece, result)
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from ostinato_learn.cli.many import ray_cluster, workers
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs.failures import Failure

_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables would be shown even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C raises KeyboardInterrupt, as without Ray
}


@dataclass(frozen=True)
class Trials:
    """Trials on the cluster that this process has joined.

    Attributes:
        n: the number of trials at a time.
        threads: the threads of each trial, for which as many CPUs are reserved.
    """

    n: int
    threads: int

    def do_all(
        self, prepare: Callable[..., workers.Work], arguments: tuple, dealer: workers.Dealer
    ) -> None:
        """See `workers.Team`."""
        import ray
        from ray import tune

        folder, storage = _in_memory()
        trial = functools.partial(_trial, prepare, ray.put(arguments))
        hooks = _hooks(dealer)
        # The first error ends all trials, and is raised unchanged.
        failing = tune.FailureConfig(fail_fast="raise")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fail_fast='raise'")
            tuner = tune.Tuner(
                tune.with_resources(trial, {"cpu": self.threads}),
                tune_config=tune.TuneConfig(
                    search_alg=hooks,
                    num_samples=-1,  # until there are no more pieces
                    max_concurrent_trials=self.n,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=folder,
                    storage_filesystem=storage,
                    stop=hooks,
                    failure_config=failing,
                    verbose=0,
                ),
            )
            try:
                tuner.fit()
            except SystemExit:  # also Ray's own, where SIGTERM broke off one of its calls
                raise Terminated from None
            except ray.exceptions.RayActorError as error:
                missing = re.search(r"^(ModuleNotFound|Import)Error: .*", str(error), re.MULTILINE)
                if missing is None:
                    raise workers.Lost from None
                raise Failure(
                    f"a worker on Ray cannot begin: {missing[0]}; wanted the same packages on "
                    "every machine of the cluster"
                ) from None
            except ray.exceptions.OutOfMemoryError:  # before the trial has begun
                raise workers.Lost from None
            except RuntimeError as error:  # Ray's manager of actors wraps errors of the cluster
                if isinstance(error.__cause__, ray.exceptions.RayError):
                    raise workers.Lost from None
                raise


def _in_memory() -> tuple[str, Any]:
    """A folder in memory and its file system, for the state that Ray Tune copies there.

    A study has its own journal, so nobody reads the copy. On disk it could not be removed reliably:
    the thread that copies may begin after an interrupt has ended `fit`.
    """
    import pyarrow.fs
    from fsspec.implementations.memory import MemoryFileSystem

    return "/ostinato", pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(MemoryFileSystem()))


def _trial(
    prepare: Callable[..., workers.Work], arguments: Any, config: dict[str, Any]
) -> dict[str, Any]:
    """A trial, in a process of Ray. If an answer ends it, `tune.report` raises SystemExit."""
    from ray import tune

    def result() -> Any:
        work = _prepared(prepare, arguments)
        return work(config["piece"], lambda question: tune.report({"question": question}))

    return {"outcome": workers.outcome(result)}


@functools.lru_cache(maxsize=1)
def _prepared(prepare: Callable[..., workers.Work], arguments: Any) -> workers.Work:
    """The work of this process, prepared in its first trial."""
    import ray

    workers.hush()
    return prepare(*ray.get(arguments))


def _hooks(dealer: workers.Dealer) -> Any:
    """Called by Ray Tune for the next trial, after each report, and at the end of a trial."""
    from ray.tune import Stopper
    from ray.tune.search import Searcher

    class Hooks(Searcher, Stopper):
        def __init__(self) -> None:
            super().__init__()
            self.left = dealer.pieces()
            self.running: dict[str, Any] = {}  # the pieces, by their trials

        def __reduce__(self) -> tuple[type, tuple[()]]:
            return object, ()  # Ray Tune saves searchers; a study has its own journal

        def suggest(self, trial_id: str) -> Any:
            for piece in self.left:
                self.running[trial_id] = piece
                return {"piece": piece}
            return Searcher.FINISHED

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            if "question" in result:
                ended = dealer.answer(self.running[trial_id], result["question"])
                if ended is not None:
                    result["outcome"] = ("result", ended)
            if "outcome" not in result:
                return False
            # A failure is raised here: from on_trial_complete Ray would log the traceback.
            workers.result(*result["outcome"])
            return True

        def stop_all(self) -> bool:
            return False

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            dealer.tell(self.running.pop(trial_id), workers.result(*result["outcome"]))

    return Hooks()


@contextmanager
def team(n: int, threads: int | None) -> Iterator[Trials]:
    """n trials at a time on the cluster of `ray_cluster.room`, which names arguments and errors."""
    with (
        ray_cluster.variables(_VARIABLES),
        redirect_stdout(sys.stderr),  # Ray reports workers that died
        ray_cluster.room(n, threads) as threads_of_each,
    ):
        yield Trials(n, threads_of_each)
