"""MoNuSeg's XML, built by ImageScope's definition."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.common.errors import InputError
from tests.formats.test_conversion import PIXELS, XML, box, convert, masks_of, names_in, region, save

LAYER = """<Annotation Id="1" Name="" ReadOnly="0" Type="4" LineColor="65280"><Attributes>
<Attribute Name="Description" Id="0" Value=""/></Attributes><Regions><RegionAttributeHeaders/>{}</Regions>
<Plots/></Annotation>"""


def write(folder: Path, *layers: str, name: str = "TCGA-1", parts: tuple[str, str] = ("Tissue Images", "Annotations")):
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / parts[0] / f"{name}.tif", PIXELS, photometric="rgb")
    (folder / parts[1] / f"{name}.xml").write_text(XML.format(annotations="".join(layers)))
    return folder


@pytest.mark.parametrize("parts", [("Tissue Images", "Annotations"), (".", ".")])
def test_all_regions_are_nuclei(parts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = [(4.6, 3.5), (9.4, 3.5), (9.4, 7.2), (4.6, 7.2)]  # holds the centres of columns 5-9 and rows 4-7
    over_the_edge = [(44.5, 20.5), (60.0, 20.5), (60.0, 30.0), (44.5, 30.0)]
    line = [(1.0, 1.0), (1.2, 1.1)]
    regions = region(cell) + region(over_the_edge) + region(line) + region(box(20, 30, 24, 33), Type=0)
    write(tmp_path / "in", LAYER.format(regions), parts=parts)
    save(tmp_path / "in/other.png", PIXELS)
    said = convert(capsys, "--from", "monuseg", tmp_path / "in", tmp_path / "out")
    assert "1 x region without a pixel" in said and "1 x image without an .xml" in said and "1 image, 3 cells" in said
    wanted = np.zeros((40, 50), np.int32)
    wanted[4:8, 5:10], wanted[21:31, 45:], wanted[30:34, 20:25] = 1, 2, 3
    assert np.array_equal(masks_of(tmp_path / "out/TCGA-1")[1], wanted) and names_in(tmp_path / "out") == ["nucleus"]


def test_holes_are_cut_and_further_layers_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = region(box(4, 4, 20, 16)) + region(box(8, 8, 12, 12), NegativeROA=1)
    write(tmp_path / "in", LAYER.format(ring), LAYER.format(region(box(30, 4, 34, 8))))
    said = convert(capsys, "--from", "monuseg", tmp_path / "in", tmp_path / "out")
    assert "1 x XML file with regions in several layers" in said
    mask = masks_of(tmp_path / "out/TCGA-1")[1]
    assert mask.max() == 2 and not mask[8:13, 8:13].any() and (mask[4:9, 30:35] == 2).all()


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", LAYER.format(region(box(4, 4, 9, 9))))
    given = ["--from", "monuseg", tmp_path / "in", tmp_path / "out"]
    with pytest.raises(InputError, match="--orientation: has no effect with --from monuseg"):
        convert(capsys, *given, "--orientation", "raw")
    xml = tmp_path / "in/Annotations/TCGA-1.xml"
    for text in (
        "",
        "<Annotations>",
        '<Annotations><Annotation><Region><Vertex X="1"/></Region></Annotation></Annotations>',
    ):
        xml.write_text(text)
        with pytest.raises(InputError, match=r"TCGA-1\.xml: cannot be read"):
            convert(capsys, *given)
    xml.write_text(XML.format(annotations=LAYER.format("")))
    with pytest.raises(InputError, match="holds no cells in its 1 image"):
        convert(capsys, *given)
    xml.rename(xml.with_name("TCGA-2.xml"))
    with pytest.raises(InputError, match=r"TCGA-2\.xml: has no image"):
        convert(capsys, *given)
    assert not (tmp_path / "out").exists()
