"""Slides on several workers, of which some are killed: each slide is predicted once, or named with the reason."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from src.cluster.on_worker import Job
from src.cohort import main
from src.common.errors import InputError
from src.common.files import file_digest
from tests.cluster import runs
from tests.cluster.runs import count, is_stand_in, start, table, wait_for, wait_for_end, write_slides
from tests.sources import ROOT

TWO = ("--workers", "2")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process that a test has started outlives it for long."""
    yield
    deadline = time.monotonic() + 10
    while left := [child for child in psutil.Process().children(recursive=True) if is_stand_in(child)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def run(listed: Path, *more: str) -> int:
    return runs.run(listed, *TWO, *more)


def test_a_worker_that_is_killed_costs_one_attempt_and_each_slide_is_done_once(tmp_path: Path) -> None:
    slides = {f"slide {number}": "kill once" if number == 1 else "ok" for number in range(5)}
    listed = write_slides(tmp_path / "Präparate", **slides)
    assert run(listed) == 0
    rows = table(listed)
    assert set(rows) == set(slides) and {row["status"] for row in rows.values()} == {"done"}
    assert {(row["mm2"], row["cells"], row["reason"]) for row in rows.values()} == {("1.5", "7", "")}
    time.sleep(3)  # in which the process of the killed worker would have written
    assert {name: count(listed, name, "ends") for name in slides} == dict.fromkeys(slides, 1)
    assert {name: count(listed, name, "starts") for name in slides} == {**dict.fromkeys(slides, 1), "slide 1": 2}


def test_slides_that_fail_are_tried_again_and_named_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_pyramid = f"fail {tmp_path}/b.svs: it has no pyramid"
    slides = {"a": "kill", "b": no_pyramid, "c": "crash", "d": "empty", "e": "ok", "f": "ok"}
    listed = write_slides(tmp_path, **slides)
    with listed.open("a") as file:
        file.write(f"{tmp_path}/missing.svs\n{tmp_path}/nu\0ll.svs\n{tmp_path}/{'x' * 300}.svs\n")
    assert run(listed, "--retries", "1") == 1
    rows, said = table(listed), capsys.readouterr().out
    assert {name for name, row in rows.items() if row["status"] == "done"} == {"e", "f"}
    reasons = {"a": "worker", "b": "it has no pyramid", "c": "SIGSEGV", "d": "no outputs", "missing": "No such file",
               "nu\0ll": "null", "x" * 300: "too long"}  # fmt: skip
    for name, reason in reasons.items():
        assert rows[name]["status"] == "failed" and reason in rows[name]["reason"], rows[name]
        assert f"{name}.svs: {rows[name]['reason']}" in said
        assert "b.svs" not in rows[name]["reason"]
    starts = {**dict.fromkeys("abcd", 2), "e": 1, "f": 1}
    assert {name: count(listed, name, "starts") for name in slides} == starts


def test_a_slide_is_tried_again_on_another_worker_and_its_log_holds_all_attempts(tmp_path: Path) -> None:
    listed = write_slides(tmp_path, b="fail it has no pyramid", c="ok")
    for _ in range(2):  # of a second run the log holds its own attempts
        assert run(listed, "--retries", "1") == 1
        log = (tmp_path / "out/b.log").read_text()
        begun = [line for line in log.splitlines() if line.startswith("---")]
        assert log.count("it has no pyramid") == 2 and len(begun) == 2
        assert len({line.split()[-1] for line in begun}) == 2
    assert count(listed, "c", "starts") == 1


def test_a_second_run_has_nothing_to_do_until_settings_slides_or_outputs_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = write_slides(tmp_path, a="ok", b="ok")
    assert run(listed) == 0
    first = table(listed)
    with monkeypatch.context() as patch:
        patch.setattr("src.cohort.connect", None)  # no worker is started
        assert run(listed) == 0
    assert table(listed) == first
    (tmp_path / "a.svs").write_text("ok as well")
    (tmp_path / "out/b/summary.json").unlink()
    for path in (tmp_path / "out/a", tmp_path / "out/b"):
        path.rename(path.with_name(f"{path.name}.before"))
    assert run(listed) == 0
    assert count(listed, "a", "starts") == count(listed, "b", "starts") == 2


def test_a_run_whose_flags_fail_every_slide_is_stopped(tmp_path: Path) -> None:
    slides = {f"s{number}": "fail error: --mpp 30: is too large" for number in range(8)}
    with pytest.raises(InputError, match="--mpp 30"):
        run(write_slides(tmp_path / "flags", **slides), "--retries", "0")
    states = [row["status"] for row in table(tmp_path / "flags/slides.txt").values()]
    assert states.count("failed") == 5 and states.count("waiting") == 3
    own = {name: f"fail error: {name}.png: is no slide" for name in slides}
    for folder, kinds in (("first", {"a": "ok", **slides}), ("own", own)):
        listed = write_slides(tmp_path / folder, **kinds)
        assert run(listed, "--retries", "0") == 1
        assert "waiting" not in {row["status"] for row in table(listed).values()}


@pytest.mark.parametrize("count_of_slides", [1, 3])
def test_flags_that_fail_all_of_few_slides_end_the_run_without_all_retries(
    tmp_path: Path, count_of_slides: int
) -> None:
    slides = {f"s{number}": "fail error: --mpp 30: is too large" for number in range(count_of_slides)}
    listed = write_slides(tmp_path, **slides)
    for given, starts in ((["--workers", "1"], 1), (["--workers", "2"], 3)):  # once on each worker
        with pytest.raises(InputError, match="--mpp 30"):
            runs.run(listed, *given, "--retries", "7")
        assert {row["status"] for row in table(listed).values()} == {"failed"}
        assert {count(listed, name, "starts") for name in slides} == {starts}


def test_a_complaint_of_one_worker_is_not_believed_while_there_is_another(tmp_path: Path) -> None:
    listed = write_slides(tmp_path, a="fail_once error: --device cuda: there is none on this machine")
    assert run(listed) == 0
    assert count(listed, "a", "starts") == 2 and table(listed)["a"]["status"] == "done"


def test_a_complaint_about_a_slide_is_one_of_its_own(tmp_path: Path) -> None:
    """As where only some workers see it: it is tried again, and does not end the run."""
    listed = write_slides(tmp_path, a=f"fail error: {tmp_path}/a.svs: no such folder")
    assert runs.run(listed, "--retries", "1") == 1
    assert table(listed)["a"]["reason"] == "no such folder" and count(listed, "a", "starts") == 2


def test_each_slide_gets_its_regions_and_is_predicted_again_when_they_change(tmp_path: Path) -> None:
    listed = write_slides(tmp_path, a="ok", b="ok")
    regions = tmp_path / "regions"
    regions.mkdir()
    for name in "ab":
        (regions / f"{name}.geojson").write_text("{}")
    behind = [*runs.flags(listed), "--tissue", str(regions)]
    main(behind, runs.STAND_IN)
    for name in "ab":
        assert f"tissue {regions}/{name}.geojson" in (tmp_path / f"out/{name}.log").read_text().splitlines()
        (tmp_path / f"out/{name}").rename(tmp_path / f"out/{name}.before")  # the stand-in writes no folder anew
    (regions / "b.geojson").write_text('{"type": "Polygon"}')
    (tmp_path / "out/a.before").rename(tmp_path / "out/a")
    main(behind, runs.STAND_IN)
    assert (count(listed, "a", "starts"), count(listed, "b", "starts")) == (1, 2)


def test_workers_are_asked_for_all_files_that_flags_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = write_slides(tmp_path, a="ok", b="ok")
    recipe, tissue = tmp_path / "recipe.toml", tmp_path / "t.geojson"
    recipe.write_text("mpp = 0.25")
    tissue.write_text("{}")
    jobs: list[Job] = []
    monkeypatch.setattr("src.cohort.predict", lambda config, job, tasks, rows: jobs.append(job))
    with pytest.raises(SystemExit):
        main([*runs.flags(listed), f"--recipe={recipe}", "--tissue", str(tissue)], runs.STAND_IN)
    files = [recipe, tmp_path / "best.pt", tissue]
    assert jobs[0].inputs == {**{str(path): file_digest(path) for path in files}, str(tmp_path / "a.svs"): ""}


def test_each_process_has_its_share_of_cores_and_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-77")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setattr("src.cluster.connection.COUNT_GPUS", "print(2)")
    listed = write_slides(tmp_path, a="ok", b="ok")
    assert run(listed, "--gpus-per-task", "1") == 0
    said = {(tmp_path / f"out/{name}.log").read_text().splitlines()[1] for name in "ab"}
    assert said == {"threads 3, GPUs 4, device cuda", "threads 3, GPUs GPU-77, device cuda"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_keeps_others_out_and_goes_on_after_it_was_stopped_without_processes_left(
    tmp_path: Path, how: signal.Signals
) -> None:
    listed = write_slides(tmp_path, a="ok", b="hang", c="ok")
    with start(listed) as command:
        process_id = wait_for(tmp_path / "b.svs.starts")
        before = (tmp_path / "out/b.log").read_bytes()
        with pytest.raises(InputError, match=r"cohort\.csv.* --out"):
            run(listed)
        assert (tmp_path / "out/b.log").read_bytes() == before and count(listed, "b", "starts") == 1
        if how == signal.SIGINT:
            os.killpg(command.pid, how)  # as a terminal does
        command.send_signal(how)
        said, _ = command.communicate(timeout=60)
    wait_for_end(process_id)
    if how == signal.SIGINT:
        assert command.returncode == 130 and "1 of 3 slides" in said and "Traceback" not in said, said
        assert [row["status"] for row in table(listed).values()] == ["done", "waiting", "waiting"]
    assert run(listed) == 0
    assert [count(listed, name, "ends") for name in "abc"] == [1, 1, 1] and count(listed, "a", "starts") == 1


@pytest.mark.torch
def test_the_network_itself_predicts_a_slide(tmp_path: Path) -> None:
    from tests.slides.scenes import picture, write_pyramid

    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides/a.tif", picture(200, 300), mpp=0.25)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/slides/a.tif\n")
    own = ["--slides", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out")]
    main([*own, "--", "--ckpt", str(ROOT / "weights/he-nuclei.safetensors"), "--device", "cpu"])
    with (tmp_path / "out/cohort.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    cells = pq.read_table(tmp_path / "out/a/cells.parquet").num_rows
    assert row["status"] == "done" and int(row["cells"]) == cells > 5
    assert 0 < float(row["mm2"]) < 200 * 300 * 0.25**2 / 1e6


SRUN = """#!/usr/bin/env bash
for number in 1 2; do "$@" & done
trap 'kill $(jobs -p)' TERM
wait
"""


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.skipif(not all(map(shutil.which, ("bash", "openssl"))), reason="needs bash and openssl")
def test_the_script_for_slurm_predicts_over_tls(tmp_path: Path) -> None:
    from tests.slides.scenes import picture, write_pyramid

    checkout = tmp_path / "checkout"
    python = f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n'
    for path, text in (("bin/srun", SRUN), ("checkout/.venv/bin/python", python)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    for name in ("src", "script"):
        (checkout / name).symlink_to(ROOT / name)
    for number in range(2):
        write_pyramid(checkout / f"{number}.tif", picture(200, 300, number), mpp=0.25)
    (checkout / "list.txt").write_text("0.tif\n1.tif\n")
    flags = ["--slides", "list.txt", "--out", "out", "--", "--ckpt", str(ROOT / "weights/he-nuclei.safetensors")]
    slurm = {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_ID": str(os.getpid())}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "script/cluster/slurm.sh"), *flags, "--device", "cpu"]
    with (tmp_path / "log").open("wb") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=300).returncode
    assert code == 0, (tmp_path / "log").read_text()[-3000:]
    assert len(list((checkout / "out").glob("*/summary.json"))) == 2
    assert (checkout / ".cohort-tls").stat().st_mode & 0o077 == 0
    assert "tls://" in (checkout / "out/0.log").read_text()
