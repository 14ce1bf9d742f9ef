"""DICOM annotations as pydicom and highdicom read them: groups, measurements, and the slide that they refer to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import highdicom
import numpy as np
import pydicom
import pytest
import shapely

from tests.features.build import made_from, publish_nuclei
from tests.slides.multifile import EDGE, dicom, element
from tests.store.build import CLASSES, nuclei
from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.exporting.dicom import holds
from wsi_nuc.exporting.export import Choice, export
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.store.manifest import Origin
from wsi_nuc.types import SlideRef

PATIENT = element(0x00100010, b"PN", "Müller^Eva".encode("latin-1")) + element(0x00100020, b"LO", "P 7")
STUDY = element(0x0020000D, b"UI", "1.2.3.4.5")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(300))


def annotations(store: Path, out: Path, **choice: Any) -> Any:
    export(store, "dicom", out, Choice(**choice))
    return highdicom.ann.annread(out)


def test_each_class_is_a_group_with_its_measurements(store: Path, tmp_path: Path) -> None:
    truth = geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")
    read = annotations(store, tmp_path / "a.dcm")
    groups = read.get_annotation_groups()
    assert [group.label for group in groups] == list(CLASSES)
    for group in groups:
        of_class = truth[truth["class"] == group.label]
        assert group.number_of_annotations == len(of_class)
        assert group.annotated_property_type.meaning == "Nucleus"
        names, values, units = group.get_measurements()
        assert [name.meaning for name in names] == ["Area", "Detection score", "Predicted IoU"]
        assert [unit.value for unit in units] == ["um2", "1", "1"]
        # A nucleus without a predicted IoU has no value, and the others keep their places.
        expected = of_class[["area_um2", "score", "predicted_iou"]].to_numpy(np.float32)
        np.testing.assert_array_equal(values, expected)
        assert 0 < np.isnan(expected[:, 2]).sum() < len(expected)


def square(x: float, y: float, size: int = 4096) -> tuple[NucleiTable, Origin]:
    """A nucleus that covers exactly the pixel whose upper left corner is (x, y), and its slide of this size."""
    table, corners = nuclei(1), np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    fields = {name: getattr(table, name) for name in table.__dataclass_fields__}
    fields |= {"xy": corners + np.array([x, y], float), "offsets": np.array([0, 4]), "tile": np.array([0])}
    return NucleiTable(**fields), made_from(size=size)


def test_whole_numbers_are_corners_of_pixels(tmp_path: Path) -> None:
    """As DICOM has it: the centre of pixel i is at i + 0.5 of its image coordinates."""
    table, origin = square(10, 20)
    read = annotations(publish_nuclei(tmp_path, table, made=origin), tmp_path / "a.dcm")
    (xy,) = read.AnnotationGroupSequence[0].get_graphic_data("2D")
    assert xy.dtype == np.float32
    assert shapely.Polygon(xy).bounds == (10, 20, 11, 21)
    assert (read.AnnotationCoordinateType, read.PixelOriginInterpretation) == ("2D", "VOLUME")
    at = {"image_position": (0.0, 0.0, 0.0), "image_orientation": (1, 0, 0, 0, 1, 0), "pixel_spacing": (0.5, 0.5)}
    centre = highdicom.spatial.ImageToReferenceTransformer(**at)(xy.mean(axis=0)[None])
    pixel = highdicom.spatial.PixelToReferenceTransformer(**at)(np.array([[10, 20]]))
    np.testing.assert_allclose(centre, pixel)


def test_a_slide_too_large_for_single_precision_gets_double(tmp_path: Path) -> None:
    table, origin = square(400_000.015625, 3, size=500_000)
    read = annotations(publish_nuclei(tmp_path, table, made=origin), tmp_path / "a.dcm")
    assert "PointCoordinatesData" not in read.AnnotationGroupSequence[0]
    (xy,) = read.AnnotationGroupSequence[0].get_graphic_data("2D")
    assert xy[:, 0].min() == 400_000.015625


def test_a_slide_that_is_not_dicom_gets_identifiers_of_its_hash(store: Path, tmp_path: Path) -> None:
    first = annotations(store, tmp_path / "a.dcm")
    again = annotations(store, tmp_path / "b.dcm", classes=("immune",))
    other = annotations(publish_nuclei(tmp_path, nuclei(9), made=made_from("b" * 64)), tmp_path / "c.dcm")
    assert [group.label for group in again.get_annotation_groups()] == ["immune"]
    assert len({read.SOPInstanceUID for read in (first, again, other)}) == 3
    referred = [read.ReferencedImageSequence[0].ReferencedSOPInstanceUID for read in (first, again, other)]
    assert referred[0] == referred[1] != referred[2]
    assert first.StudyInstanceUID == again.StudyInstanceUID != other.StudyInstanceUID
    assert all(pydicom.uid.UID(uid).is_valid for uid in (*referred, first.SOPInstanceUID, first.StudyInstanceUID))
    assert (first.PatientName, first.PatientID) == ("", "")


def store_of_dicom(folder: Path, sex: str = "F") -> Path:
    """A store of a DICOM slide with two levels, which lies beside it."""
    patient = PATIENT + element(0x00100040, b"CS", sex)
    named = element(0x00080005, b"CS", "ISO_IR 100") + patient + STUDY
    slide = folder / "slide"
    slide.mkdir()
    # Another level of the same series, first by name.
    dicom(slide / "a.dcm", np.zeros((EDGE // 2, EDGE // 2, 3), np.uint8), before=named)
    dicom(slide / "base.dcm", before=named)
    origin = made_from(content_sha256(SlideRef(str(slide))), size=EDGE)
    origin.slide["file"] = "slide"
    return publish_nuclei(folder, nuclei(20, size=EDGE), made=origin, name="slide.zarr")


@pytest.fixture
def of_dicom(tmp_path: Path) -> Path:
    return store_of_dicom(tmp_path)


def test_a_header_that_is_against_dicom_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"value that DICOM does not allow .*UNKNOWN"):
        export(store_of_dicom(tmp_path, sex="UNKNOWN"), "dicom", tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()


def test_a_dicom_slide_is_referred_to_by_its_level_0_and_gives_the_patient(of_dicom: Path, tmp_path: Path) -> None:
    read = annotations(of_dicom, tmp_path / "a.dcm")
    image = read.ReferencedImageSequence[0]
    assert (image.ReferencedSOPInstanceUID, image.ReferencedSOPClassUID.name) == (
        f"1.2.3.{EDGE}",
        "VL Whole Slide Microscopy Image Storage",
    )
    assert read.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3"
    assert (str(read.PatientName), read.PatientID, read.StudyInstanceUID) == ("Müller^Eva", "P 7", "1.2.3.4.5")


def test_another_slide_of_that_name_is_refused(of_dicom: Path, tmp_path: Path) -> None:
    dicom(of_dicom.parent / "slide" / "base.dcm", np.zeros((EDGE, EDGE, 3), np.uint8))
    with pytest.raises(SlideError, match="not the slide that the nuclei were found on"):
        export(of_dicom, "dicom", tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(of_dicom: Path, store: Path, tmp_path: Path) -> None:
    for number, path in enumerate((of_dicom, store)):
        out = tmp_path / f"{number}.dcm"
        annotations(path, out)
        said = subprocess.run(["dciodvfy", "-new", out], capture_output=True, text=True, check=False).stderr
        assert "MicroscopyBulkSimpleAnnotations" in said
        errors = [line for line in said.splitlines() if line.startswith("Error")]
        # It says this of any file with 2D coordinates, although none has this element.
        assert [line for line in errors if "CommonZCoordinateValue" not in line] == []


def test_labels_are_unicode_of_up_to_64_characters_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.features.build.CLASSES", ("größer als 5 µm", "stroma", "x" * 64))
    store = publish_nuclei(tmp_path, nuclei(60))
    labels = [group.label for group in annotations(store, tmp_path / "a.dcm").get_annotation_groups()]
    assert labels == ["größer als 5 µm", "stroma", "x" * 64]
    assert [name for name in ("x" * 65, "a\\b", "two\nlines", " ", "größer") if holds(name)] == ["größer"]


def test_more_outlines_of_a_class_than_dicom_holds_are_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_nuc.exporting.dicom._MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="outlines of tumour are more than") as caught:
        export(store, "dicom", tmp_path / "a.dcm")
    assert "--box" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_the_remedy_is_the_extra(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        export(store, "dicom", tmp_path / "a.dcm")
    assert "wsi-nuc[dicom]" in caught.value.remedy
