"""A report is made of a run folder by hand, and opened in a real browser where there is one."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.common.errors import InputError
from src.common.files import append_line
from src.config.flags import build
from src.config.recipe import write_toml
from src.config.settings import TrainConfig
from src.data.classes import load_classes
from src.data.id_map import ImageId, write_id_map
from src.data.tiff import write_mask
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import read_results, result_entries, write_results
from src.evaluation.scores import score
from src.geometry.instances import Instance
from src.report import main
from src.reporting.viewers import svg_path
from tests.helpers import find_records, write_dataset

CLASSES = [{"id": 1, "name": "large", "color": "#ff0000"}, {"id": 2, "name": "small", "color": "#00aa00"}]
LOSSES = dict.fromkeys(("classifier", "box", "mask", "objectness", "rpn_box"), 0.2)


def make_run(folder: Path, lr: float) -> Path:
    """A run that detects all true cells except one per image, one of another class, and one where nothing is."""
    data = folder.parent / "data"
    if not data.exists():
        write_dataset(data, "ab")
    config = build(TrainConfig, {"data_path": str(data), "output_dir": str(folder), "lr": lr, "channel_order": "rgb"})
    write_toml(folder / "config.toml", config)
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    append_line(
        folder / "log.jsonl",
        {"event": "start", "step": 0, "command": "python main.py <b>", "versions": {"torch": "2.x"}},
    )
    for step in range(1, 30):
        event = {"event": "step", "step": step, "time_s": 2.0 * step, "lr": lr, "images_per_s": 2.0, "loss": 1 / step}
        append_line(folder / "log.jsonl", {**event, **LOSSES})
    append_line(folder / "log.jsonl", {"event": "val", "step": 29, "AP50": 0.5, "AP": 0.2, "AP50_at_100": 0.4})
    records = find_records(data, 2)
    ids = [ImageId(f"{record.name}.tif", k, record.height, record.width) for k, record in enumerate(records, start=1)]
    write_id_map(folder / "val-results.id-map.json", ids)
    entries = []
    for truth in load_ground_truth(data, 2, folder / "val-results.id-map.json"):
        cells = [Instance(c.class_id, 0.9, c.top, c.left, c.mask) for c in truth.instances[1:]]
        cells[0] = Instance(3 - cells[0].class_id, 0.8, cells[0].top, cells[0].left, cells[0].mask)
        cells.append(Instance(1, 0.7, 0, 0, np.ones((4, 4), bool)))
        entries += result_entries(truth.id, cells, truth.height, truth.width)
    write_results(folder / "val-results.json", entries)
    return folder


def test_a_report_tells_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "one", 0.01)
    main(["--run", str(run)])
    assert capsys.readouterr().out.startswith(f"wrote {run / 'report.html'}: ")
    text = (run / "report.html").read_text()
    assert "29 steps in 1.0 min" in text and "python main.py &lt;b&gt;" in text and "torch 2.x" in text
    assert text.count("<figure><svg") == 3 + 5 and text.count('class="viewer"') == 2
    assert re.search(r"wrong class</td><td>2<", text) and "lr = 0.01" in text
    assert not re.search(r"(?:src|href)=.https?:|@import|url\((?!#)", text)
    scores = score(
        load_ground_truth(run.parent / "data", 2, run / "val-results.id-map.json"),
        read_results(run / "val-results.json"),
        load_classes(run / "classes.json"),
    )
    assert f"<td>all</td><td>{scores['uncapped']['AP50']:.3f}</td>" in text


def test_a_run_whose_classes_a_flag_named_is_reported_by_their_ids(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", 0.01)
    main(["--run", str(run)])
    before = re.findall(r"<td>all</td><td>[0-9.]+</td>", page_of(run))
    names = [{**entry, "name": f"other {entry['name']}"} for entry in CLASSES]
    (run.parent / "data/classes.json").write_text(json.dumps(names))  # the folder's own, which the run did not use
    main(["--run", str(run)])
    assert before and re.findall(r"<td>all</td><td>[0-9.]+</td>", page_of(run)) == before


def test_false_detections_in_regions_to_ignore_are_no_errors(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", 0.01)
    region = np.zeros((96, 80), np.uint16)
    region[:8, :8] = 1
    write_mask(run.parent / "data/a/ambiguous.tif", region)
    main(["--run", str(run)])
    captions = re.findall(r'<figure class="error"><img alt="([^"]*)"', page_of(run))
    assert [caption for caption in captions if "score 0.70" in caption] == ["edge, score 0.70, b"]


@pytest.mark.parametrize(("crowds", "said"), [("cells", "taken as cells"), ("ignore", "taken as regions to ignore")])
def test_crowds_of_a_coco_truth_are_as_the_flag_says(
    crowds: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "one", 0.01)
    truths = load_ground_truth(run.parent / "data", 2, run / "val-results.id-map.json")
    annotations = [
        {**entry, "iscrowd": int(number == 0)}
        for truth in truths
        for number, entry in enumerate(result_entries(truth.id, truth.instances, truth.height, truth.width))
    ]
    images = [{"id": t.id, "file_name": f"{t.name}.png", "height": t.height, "width": t.width} for t in truths]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    main(["--run", str(run), "--gt", str(tmp_path / "gt.json"), "--images", str(run.parent), "--crowds", crowds])
    assert said in capsys.readouterr().err


def test_the_worst_errors_are_drawn_beside_the_truth(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", 0.01)
    main(["--run", str(run)])
    figures = re.findall(r'<figure class="error"><img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', page_of(run))
    captions = [caption for caption, _ in figures]
    missed = [caption for caption in captions if " px, " in caption]
    assert len(missed) == 4 and sum("wrong class" in caption for caption in missed) == 2
    assert sorted(caption for caption in captions if "score 0.70" in caption) == [
        "edge, score 0.70, a", "edge, score 0.70, b",
    ]  # fmt: skip
    for _, data in figures:
        drawn = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert drawn.shape == (72 * 3, 2 * 72 * 3 + 3, 3)


def page_of(run: Path) -> str:
    return (run / "report.html").read_text()


def test_two_runs_are_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "one", 0.01), make_run(tmp_path / "two", 0.02)]
    main([word for run in runs for word in ("--run", str(run))])
    text = (runs[0] / "report.html").read_text()
    assert "one against two" in text
    row = re.search(r"<tr><td>PQ</td>(.*?)</tr>", text)
    assert row and re.findall(r"<td>(.*?)</td>", row[1])[4:] == ["+0.000", "+0.000 to +0.000"]
    assert "one - two" in text and "1000 bootstrap resamples of 2 images" in text
    assert re.search(r"<tr><td>lr</td><td>0.01</td><td>0.02</td></tr>", text) and "<td>output_dir</td>" in text


def test_runs_of_different_images_are_not_paired(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "one", 0.01), make_run(tmp_path / "two", 0.02)]
    ids = json.loads((runs[1] / "val-results.id-map.json").read_text())
    (runs[1] / "val-results.id-map.json").write_text(json.dumps(ids[:1]))
    write_results(runs[1] / "val-results.json", [])
    main([word for run in runs for word in ("--run", str(run))])
    text = page_of(runs[0])
    assert "one - two" not in text and text.count("scored on different images") == 2
    assert text.count("<td>AJI+</td>") == 2 and "at least two groups" in text


def test_groups_of_the_training_are_resampled_and_none_where_that_is_asked(tmp_path: Path) -> None:
    run, groups = make_run(tmp_path / "one", 0.01), tmp_path / "groups.json"
    groups.write_text('{"a": "x", "b": "y"}')
    main(["--run", str(run), "--bootstrap", "10", "--groups", str(groups)])
    assert "10 bootstrap resamples of 2 groups of" in page_of(run)
    recipe = (run / "config.toml").read_text()
    (run / "config.toml").write_text(f"groups = {json.dumps(str(groups))}\n{recipe}")
    main(["--run", str(run)])
    assert "1000 bootstrap resamples of 2 groups of" in page_of(run)
    groups.unlink()
    main(["--run", str(run)])
    assert "1000 bootstrap resamples of 2 images" in page_of(run)
    main(["--run", str(run), "--bootstrap", "0"])
    assert "resamples" not in page_of(run) and "interval" not in page_of(run) and "<td>AJI+</td>" in page_of(run)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name / "logs", lr) for name, lr in (("one", 0.01), ("two", 0.02))]
    main([word for run in runs for word in ("--run", str(run))])
    text = (runs[0] / "report.html").read_text()
    assert "one/logs against two/logs" in text and "loss (one/logs)" in text and "loss (two/logs)" in text
    with pytest.raises(InputError, match="the same folder is given twice"):
        main(["--run", str(runs[0]), "--run", str(runs[0])])


def test_a_run_that_was_taken_elsewhere_is_told_without_its_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "_one", 0.01)
    append_line(run / "log.jsonl", {"no": "event"})
    main(["--run", str(run), "--pred", str(run / "val-results.json")])
    assert 'class="viewer"' in (run / "report.html").read_text()
    (tmp_path / "data").rename(tmp_path / "moved")
    main(["--run", str(run)])
    text = (run / "report.html").read_text()
    assert f"The data of the run are not in {tmp_path}/data" in text and text.count("<figure><svg") == 3
    assert "\u200b_one" in text
    main(["--run", str(run), "--gt", str(tmp_path / "moved"), "--images", str(tmp_path)])
    assert "with --images" in (run / "report.html").read_text()
    with pytest.raises(InputError, match=r"--images .*/mooved: no such folder; did you mean .*/moved"):
        main(["--run", str(run), "--gt", str(tmp_path / "moved"), "--images", str(tmp_path / "mooved")])


def test_results_of_a_folder_need_an_id_map(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", 0.01)
    (run / "val-results.id-map.json").unlink()
    with pytest.raises(InputError, match=r"val-results\.id-map\.json: no such file; name an id map"):
        main(["--run", str(run)])


def test_a_run_without_validation_and_what_is_no_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", 0.01)
    (run / "val-results.json").unlink()
    main(["--run", str(run), "--output", str(tmp_path / "r.html")])
    assert "No validation was made yet" in (tmp_path / "r.html").read_text()
    with pytest.raises(InputError, match=r"log\.jsonl: no such file; --run takes a folder"):
        main(["--run", str(tmp_path)])
    with pytest.raises(InputError, match="--run is missing"):
        main([])


def test_an_outline_is_a_path_along_the_pixels() -> None:
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    outer, inner = svg_path([Instance(1, 1.0, 10, 20, ring)]).split("z")[:2]
    assert outer.startswith("M20 10") and sorted(re.findall(r"[hv]-?\d+", outer)) in (
        ["h-3", "h3", "v3"], ["h3", "v-3", "v3"], ["h3", "h-3", "v3"], ["h-3", "h3", "v-3"],
    )  # fmt: skip
    assert inner.startswith("M21 11") and "3" not in re.sub(r"M\d+ \d+", "", inner)


CLICKS = """<script>
const told = [], viewer = document.querySelector(".viewer"), layer = name => viewer.querySelector("svg ." + name);
const shown = name => getComputedStyle(layer(name)).display !== "none";
for (const name of ["truth", "found", "false_positives", "false_negatives"]) {
  const before = shown(name);
  viewer.querySelector(`[data-layer=${name}]`).click();
  told.push(name + ":" + before + ">" + shown(name));
}
const width = viewer.querySelector(".stage").getBoundingClientRect().width;
viewer.querySelector("[data-zoom='2']").click();
told.push("zoom:" + Math.round(viewer.querySelector(".stage").getBoundingClientRect().width / width));
told.push("wide:" + (document.documentElement.scrollWidth > innerWidth));
document.title = told.join(" ");
</script>"""


@pytest.mark.parametrize("width", [1200, 400])
def test_in_a_browser_the_layers_toggle_and_zoom(tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium on this machine")
    run = make_run(tmp_path / "one", 0.01)
    main(["--run", str(run)])
    page = run / "report.html"
    page.write_text(page.read_text().replace("</body>", CLICKS + "</body>"))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/chrome",
    ]
    done = subprocess.run(
        [browser, *flags, f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr[-2000:]
    assert title[1].replace("&gt;", ">").split() == [
        "truth:true>false", "found:true>false", "false_positives:false>true", "false_negatives:false>true",
        "zoom:2", "wide:false",
    ]  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
