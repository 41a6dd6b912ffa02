"""A scheduler that runs already: workers without the data or a GPU, and a scheduler that ends in the middle."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from src.cluster import schedule
from src.cluster.on_worker import Job
from src.cluster.tasks import SlideTask
from src.common.errors import InputError
from tests.cluster.runs import count, environment, run, start, table, wait_for, wait_for_end, write_slides


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers that offer no GPU."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        yield cluster


def hide(path: str) -> None:
    """Make a worker not see a path, as if it were not mounted there; an empty one shows all again."""
    from src.cluster import on_worker

    class PartlyBlindPath(Path):
        _flavour = getattr(type(Path()), "_flavour", None)  # without which Python 3.11 makes no subclass

        def exists(self, **how: Any) -> bool:
            return str(self) != path and super().exists(**how)

    on_worker.Path = PartlyBlindPath if path else Path  # type: ignore[misc]


def test_a_worker_without_the_data_is_named_and_gets_no_slide(
    tmp_path: Path, cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = write_slides(tmp_path, a="ok", b="ok", c="ok", d="ok")
    address = cluster.scheduler_address
    with Client(address) as client:
        blind, seeing = sorted(client.scheduler_info()["workers"])
        client.run(hide, str(tmp_path / "a.svs"), workers=[blind])
        try:
            assert run(listed, "--scheduler", address) == 0
            assert {row["status"] for row in table(listed).values()} == {"done"}
            lines = [line for line in capsys.readouterr().out.splitlines() if blind in line]
            assert len(lines) == 1 and str(tmp_path / "a.svs") in lines[0]
            assert all(seeing in (tmp_path / f"out/{name}.log").read_text() for name in "abcd")
            other = write_slides(tmp_path / "other", e="ok")
            client.run(hide, str(tmp_path / "other/best.pt"))
            with pytest.raises(InputError, match=r"none of 2 workers.*other/best\.pt"):
                run(other, "--scheduler", address)
            assert count(other, "e", "starts") == 0 and table(other)["e"]["status"] == "waiting"
        finally:
            client.run(hide, "")


def test_a_slide_that_one_worker_does_not_see_is_predicted_on_another(tmp_path: Path, cluster: LocalCluster) -> None:
    listed = write_slides(tmp_path, a="ok", b="ok")
    with Client(cluster.scheduler_address) as client:
        seeing, blind = sorted(client.scheduler_info()["workers"])  # the second one gets the second slide
        client.run(hide, str(tmp_path / "b.svs"), workers=[blind])
        try:
            assert run(listed, "--scheduler", cluster.scheduler_address) == 0
        finally:
            client.run(hide, "")
    assert f"attempt 2 on {seeing}" in (tmp_path / "out/b.log").read_text() and count(listed, "b", "starts") == 1


def test_an_output_folder_that_is_another_on_the_worker_is_refused(tmp_path: Path, cluster: LocalCluster) -> None:
    listed = write_slides(tmp_path, a="ok")
    with Client(cluster.scheduler_address) as client:
        client.run(_record_of_another)
        try:
            with pytest.raises(InputError, match="out is another folder"):
                run(listed, "--scheduler", cluster.scheduler_address)
        finally:
            client.run(_own_record)


def _record_of_another() -> None:
    from src.cluster import on_worker

    on_worker.read_json = lambda path: {"id": "of another"}  # type: ignore[assignment]


def _own_record() -> None:
    from src.cluster import on_worker
    from src.common.files import read_json

    on_worker.read_json = read_json


def test_workers_that_offer_too_few_gpus_are_refused(tmp_path: Path, cluster: LocalCluster) -> None:
    with pytest.raises(InputError, match="fewer than 1 of the resource GPU"):
        run(write_slides(tmp_path, a="ok"), "--scheduler", cluster.scheduler_address, "--gpus-per-task", "1")


def test_no_scheduler_and_a_wrong_address_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.cluster.connection.SECONDS_TO_ANSWER", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://127.0.0.1:9", "127.0.0.1", "tls://127.0.0.1:9"):
        with pytest.raises(InputError, match=f"--scheduler {address}"):
            run(write_slides(tmp_path, a="ok"), "--scheduler", address)


@contextmanager
def own_scheduler(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A scheduler and a worker with a GPU, each in a process of its own: the scheduler's address and process."""
    folder.mkdir()
    about = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    at = ["--scheduler-file", str(about), "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard"]
    options = ["--nthreads", "1", "--resources", "GPU=1", "--local-directory", str(folder)]
    with ExitStack() as stack, (folder / "log.txt").open("wb") as log:
        processes = [
            stack.enter_context(subprocess.Popen([*dask, *command], env=environment(), stderr=log, cwd=folder))
            for command in (["scheduler", "--port", "0", *at], ["worker", *at, *options])
        ]
        try:
            with Client(scheduler_file=str(_there(about)), timeout=60) as client:
                client.wait_for_workers(1, timeout=60)
                address = client.scheduler.address
            yield address, processes[0]
        finally:
            for process in reversed(processes):
                process.terminate()


def _there(path: Path) -> Path:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return path


@pytest.mark.slow
def test_what_a_scheduler_leaves_undone_when_it_ends_another_one_does(tmp_path: Path) -> None:
    listed = write_slides(tmp_path, a="ok", b="hang", c="ok")
    with own_scheduler(tmp_path / "first") as (address, scheduler):
        with start(listed, "--scheduler", address) as command:
            process_id = wait_for(tmp_path / "b.svs.starts")
            scheduler.kill()
            wait_for_end(process_id)
            said, _ = command.communicate(timeout=60)
        assert command.returncode == 1 and f"--scheduler {address}" in said, said
    assert [row["status"] for row in table(listed).values()] == ["done", "waiting", "waiting"]
    with own_scheduler(tmp_path / "second") as (address, _):
        assert run(listed, "--scheduler", address, "--gpus-per-task", "1") == 0
    assert [count(listed, name, "ends") for name in "abc"] == [1, 1, 1] and count(listed, "a", "starts") == 1


class OneWorker:
    """Stands in for Dask's client: a scheduler with one worker, which answers as it is told, and what it was asked."""

    status = "running"

    def __init__(self) -> None:
        self.answer, self.asked = "", list[Job]()

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {"tcp://w": {"status": "running", "resources": {}, "host": "node1"}}}

    def run(self, check: Callable[[Job], str], job: Job, workers: list[str], on_error: str) -> dict[str, str]:
        self.asked.append(job)
        return dict.fromkeys(workers, self.answer)


class Deaf(OneWorker):
    """A client whose scheduler does not answer, and that is closed after a while."""

    looks = 0

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 3:
            self.status = "closed"
        raise OSError("Timed out trying to connect")


def test_a_scheduler_that_does_not_answer_is_lost_once_the_client_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "WAIT", 0)
    client = Deaf()
    workers = schedule.Workers(client, Job([], {}, "", "", ""), gpus=0)
    with pytest.raises(schedule.SchedulerLostError):
        list(schedule.Schedule(workers, [SlideTask("a.svs", "a")], retries=0))
    assert client.looks == 3


def test_a_worker_that_was_left_out_is_named_once_and_used_when_its_paths_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schedule, "SECONDS_BETWEEN_LOOKS", 0)
    slide = tmp_path / "a.svs"
    slide.touch()
    client = OneWorker()
    workers = schedule.Workers(client, Job([], {str(slide): "", "best.pt": "1"}, "", "", ""), gpus=0)
    workers.look()
    assert workers.fit == {"tcp://w"}
    client.answer = "it does not see best.pt"
    workers.doubt("tcp://w")
    slide.unlink()  # predicted, and put into an archive
    for pause, asked in ((1e6, 2), (1e6, 2), (-1, 3)):
        monkeypatch.setattr(schedule, "SECONDS_LEFT_OUT", pause)
        workers.look()
        assert not workers.fit and len(client.asked) == asked
    client.answer = ""
    workers.look()
    assert workers.fit == {"tcp://w"} and not workers.left_out
    assert capsys.readouterr().out.count("best.pt") == 1
    assert str(slide) in client.asked[0].inputs and set(client.asked[-1].inputs) == {"best.pt"}
