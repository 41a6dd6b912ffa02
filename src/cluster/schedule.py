"""Which worker predicts which slide: one slide a worker at a time; what fails is tried again on another.

The slides wait here, not at the scheduler, and each is sent to a worker by name. So the scheduler holds no more tasks
than it has workers, a worker that dies costs one attempt of one slide, and one that does not see the data gets none.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from src.cluster.on_worker import COMPLAINT, Job, predict_slide, why_unfit
from src.cluster.tasks import SlideTask
from src.common.errors import InputError, counted, one_line
from src.common.progress import say

SECONDS_BETWEEN_LOOKS = 1.0  # at which workers there are
SECONDS_LEFT_OUT = 120.0  # after which workers that were left out are checked again: a file server may be back
WAIT = 0.5  # seconds for a slide to end, before what has changed is looked at
PATIENCE = 60.0  # seconds in which a worker answers


class SchedulerLostError(Exception):
    """The scheduler ended before all slides had."""


@dataclass(frozen=True)
class Outcome:
    """How a slide ended: ``reason`` says why it failed, and is empty where it is done."""

    task: SlideTask
    reason: str
    seconds: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One try of a slide, the workers on which others have failed, and why the last one did."""

    task: SlideTask
    number: int = 1
    failed_on: frozenset[str] = frozenset()
    reason: str = ""


@dataclass
class Workers:
    """The workers of a scheduler that see all paths, and offer enough GPUs.

    Args:
        client: Dask's.
        job: what they need to see.
        gpus: how many GPUs a task takes.
    """

    client: Any
    job: Job
    gpus: int
    fit: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    looked: float = float("-inf")
    checked: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Ask the scheduler which workers there are, and check the paths of those that are new."""
        if time.monotonic() - self.looked < SECONDS_BETWEEN_LOOKS:
            return
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        there = {address for address, about in known.items() if about["status"] == "running"}
        self.fit &= there
        self.left_out = {address: reason for address, reason in self.left_out.items() if address in there}
        new = there - self.fit
        if time.monotonic() - self.checked > SECONDS_LEFT_OUT:
            self.checked = time.monotonic()
        else:
            new -= set(self.left_out)
        for address, reason in self._checked(new, known).items():
            if reason and self.left_out.get(address) != reason:
                say(f"worker {address} on {known[address]['host']} is left out: {reason}")
            if reason:
                self.left_out[address] = reason
            else:
                self.fit.add(address)
                self.left_out.pop(address, None)
        self.looked = time.monotonic()

    def _checked(self, addresses: Collection[str], known: Any) -> dict[str, str]:
        """Why each worker is unfit; empty for those that are fit. A worker that ends meanwhile is left out."""
        poor = {one for one in addresses if (known[one]["resources"] or {}).get("GPU", 0) < self.gpus}
        rest = sorted(set(addresses) - poor)
        asked = {path: digest for path, digest in self.job.inputs.items() if digest or Path(path).exists()}
        job = replace(self.job, inputs=asked)  # without a slide that was moved since the run began
        answers = self.client.run(why_unfit, job, workers=rest, on_error="return") if rest else {}
        found = {one: answer if isinstance(answer, str) else one_line(answer) for one, answer in answers.items()}
        return {**found, **dict.fromkeys(poor, f"it offers fewer than {self.gpus} of the resource GPU")}

    def doubt(self, address: str) -> None:
        """Check a worker again before it gets another slide."""
        self.fit.discard(address)
        self.looked = float("-inf")


class Schedule:
    """Predict slides on workers: iterating gives the outcome of each slide, in the order in which they end.

    Args:
        workers: those that there are, and will be.
        tasks: the slides.
        retries: how often a slide that has failed is tried again.
        run: what a worker runs for an attempt.
    """

    def __init__(
        self,
        workers: Workers,
        tasks: Sequence[SlideTask],
        retries: int,
        run: Callable[[SlideTask, Job, int], tuple[str, float]] = predict_slide,
    ) -> None:
        self._workers, self._retries, self._count, self._run = workers, retries, len(tasks), run
        self._waiting = deque(Attempt(task) for task in tasks)
        self._again: list[Attempt] = []
        self._running: dict[Any, tuple[Attempt, str]] = {}  # by future: the attempt, and its worker
        self._has_begun = self._is_told = False

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Outcome]:
        """Run until all slides have ended.

        Raises:
            InputError: no worker can predict.
            SchedulerLostError: the scheduler ended, and did not come back for half a minute.
        """
        while self._waiting or self._again or self._running:
            yield from self._step()

    def _step(self) -> list[Outcome]:
        try:
            with suppress(OSError):  # no answer, while Dask's client tries to connect again, until it is closed
                self._workers.look()
            if self._is_lost():
                raise SchedulerLostError
            self._tell()
            given_up = list(self._given_up())
            self._start()
            self._wait()
            return [*given_up, *self._ended()]
        except Exception as error:  # Dask raises many kinds when its connection is lost
            if self._is_lost():
                raise SchedulerLostError from error
            raise

    def _is_lost(self) -> bool:
        return self._workers.client.status in ("closing", "closed")

    def _tell(self) -> None:
        """Say that nobody works; refuse to wait where none of the workers at the beginning can.

        Raises:
            InputError: they do not see a path, or have no GPU.
        """
        left_out, is_idle = self._workers.left_out, not self._workers.fit and not self._running
        if is_idle and left_out and not self._has_begun:
            address, reason = next(iter(left_out.items()))
            raise InputError(f"none of {counted(len(left_out), 'worker')} can predict; {address}: {reason}")
        if is_idle and not self._is_told:
            say("no workers; waiting for them")
        self._is_told = is_idle

    def _start(self) -> None:
        """Send a slide to each idle worker."""
        busy = {address for _, address in self._running.values()}
        for address in sorted(self._workers.fit - busy):
            attempt = self._next_for(address)
            if attempt is None:
                continue
            resources = {"GPU": self._workers.gpus} if self._workers.gpus else None
            future = self._workers.client.submit(
                self._run, attempt.task, self._workers.job, attempt.number,
                workers=[address], resources=resources, pure=False,
            )  # fmt: skip
            self._running[future] = (attempt, address)
            self._has_begun = True

    def _next_for(self, address: str) -> Attempt | None:
        """The next slide for a worker: one that failed on others, or that waits, or that failed wherever it can run."""
        for number, attempt in enumerate(self._again):
            if address not in attempt.failed_on:
                return self._again.pop(number)
        if self._waiting:
            return self._waiting.popleft()
        others = self._workers.fit - {address}
        for number, attempt in enumerate(self._again):
            if others <= attempt.failed_on:
                return self._again.pop(number)
        return None

    def _given_up(self) -> Iterator[Outcome]:
        """The slides for which all workers have said that flags or files are wrong, although they see every path."""
        fit = self._workers.fit
        for attempt in [one for one in self._again if one.reason.startswith(COMPLAINT)]:
            if fit and fit <= attempt.failed_on:
                self._again.remove(attempt)
                yield Outcome(attempt.task, attempt.reason)

    def _ended(self) -> Iterator[Outcome]:
        """The slides that have ended for good; others that failed are queued again."""
        for future, (attempt, address) in list(self._running.items()):
            if not future.done() and address in self._workers.fit:
                continue
            del self._running[future]
            reason, seconds = _result(future)
            future.cancel()
            if not reason:
                yield Outcome(attempt.task, "", seconds)
                continue
            self._workers.doubt(address)
            if attempt.number > self._retries:
                yield Outcome(attempt.task, reason)
            else:
                failed_on = attempt.failed_on | {address}
                self._again.append(Attempt(attempt.task, attempt.number + 1, failed_on, reason))

    def _wait(self) -> None:
        """Wait until a slide has ended, or for a moment."""
        from distributed import CancelledError, wait

        if not self._running:
            time.sleep(WAIT)
        else:
            with suppress(TimeoutError, CancelledError):  # cancelled: the scheduler was restarted
                wait(list(self._running), timeout=WAIT, return_when="FIRST_COMPLETED")


def _result(future: Any) -> tuple[str, float | None]:
    """Why a slide failed, empty where it did not, and its seconds."""
    from distributed import CancelledError

    if future.status == "error":
        return one_line(future.exception()), None
    if future.status == "finished":
        with suppress(TimeoutError, CancelledError):
            return future.result(timeout=PATIENCE)
    return "its worker ended, as when the memory is full or the machine is stopped", None
