"""DICOM Microscopy Bulk Simple Annotations: one group of polygons per class, with areas and scores.

DICOM counts pixels of the whole image from the upper left corner of the first pixel, whose centre is at 0.5, as
this program does. So coordinates are written as they are: columns before rows, as 2D coordinates of level 0, in
single precision where the slide is small enough for it to be exact. Rows of a class keep the store's order.

If the slide lies beside the store (or one folder up, or here) and is DICOM, the annotations refer to its image of
level 0, and take over its patient and study. Otherwise patient and study are empty, and the identifiers of study,
series and image are made from the hash of the slide, so that all exports of one slide share them.

highdicom makes the dataset, with one polygon per group to stand in for all. The polygons themselves go through a
temporary file and are never in memory together; neither library writes sequences without holding them whole.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import UsageError
from wsi_nuc.exporting.registry import About, library
from wsi_nuc.slides import dicom as headers
from wsi_nuc.slides.files import contents
from wsi_nuc.slides.identity import refuse_other
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.nuclei_rows import NucleiRows
from wsi_nuc.store.reading import slide_beside
from wsi_nuc.types import SlideRef

SUFFIX, KIND = ".ann.dcm", "file"
COLUMNS = ("class_id", "area_um2", "score", "predicted_iou")
# Column -> code, scheme and meaning of its name, then of its unit.
MEASUREMENTS = {
    "area_um2": (("42798000", "SCT", "Area"), ("um2", "UCUM", "square micrometer")),
    "score": (("score", "99WSINUC", "Detection score"), ("1", "UCUM", "no units")),
    "predicted_iou": (("predicted_iou", "99WSINUC", "Predicted IoU"), ("1", "UCUM", "no units")),
}
NUCLEUS, STRUCTURE = ("84640000", "SCT", "Nucleus"), ("91723000", "SCT", "Anatomical Structure")
# Vertices lie on 1/64 px, so 24 bits hold them exactly up to here.
_EXACT_PX = 2**18
_LONGEST_LABEL, _MOST_BYTES = 64, 2**32 - 2
# What an annotation takes over from its image: DICOM wants these even if they are empty.
_TAKEN = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName", "ContentDate", "ContentTime"),
)
_IDENTIFIED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_MORE = ("SpecificCharacterSet", "PositionReferenceIndicator")
_SPECIMEN = ("ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence",
             "SpecimenDescriptionSequence")  # fmt: skip
_ITEM, _ITEM_END, _SEQUENCE_END = headers.ITEM, headers.ITEM_END, headers.SEQUENCE_END
_UTF8, _NO_DATE, _NO_TIME = "ISO_IR 192", "19700101", "000000"


def write_path(nuclei: Iterable[NucleiRows], about: About, path: Path) -> None:
    highdicom = library("highdicom", "dicom")
    double = max(about.slide["width_px"], about.slide["height_px"]) > _EXACT_PX
    # The file has no name, so that nothing stays after a kill.
    with tempfile.TemporaryFile(dir=path.parent) as file, path.open("wb") as out, warnings.catch_warnings():
        # Of values in the slide's header that are not quite as DICOM wants them, and are taken over all the same.
        warnings.simplefilter("ignore")
        source = _source(about)
        held = _Held(file, np.float64 if double else np.float32)
        for rows in nuclei:
            kinds = rows.columns["class_id"].astype(np.int64)
            for kind in np.unique(kinds).tolist():
                held.add(kind, rows.select(np.flatnonzero(kinds == kind)))
        if not held.counts:
            cause = "has no such nuclei, and DICOM has no file without annotations"
            raise UsageError(about.store, cause, "export other nuclei, or in another format")
        for kind in held.counts:
            if held.size((kind, "xy")) > _MOST_BYTES:
                cause = f"its outlines of {about.classes[kind]} are more than the 4 GiB that DICOM holds"
                raise UsageError(about.store, cause, "export parts of it with --box")
        try:
            dataset = _annotations(highdicom, about, source, held)
        except (TypeError, ValueError) as error:
            cause = f"its slide has a value that DICOM does not allow ({error})"
            raise UsageError(about.store, cause, "mend the slide's header, or move the slide away") from error
        _write_file(dataset, held, out)


def holds(name: str) -> bool:
    """Whether DICOM can have it as a label (its LO)."""
    return bool(name.strip()) and len(name) <= _LONGEST_LABEL and "\\" not in name and name.isprintable()


class _Held:
    """All nuclei, each class apart, in one file; and which elements of the dataset are read from there."""

    def __init__(self, file: IO[bytes], dtype: type) -> None:
        self.dtype = dtype
        self.counts: dict[int, int] = defaultdict(int)
        """The number of nuclei of each class that has any."""
        self.elements: dict[int, dict[int, Any]] = defaultdict(dict)
        """By the identity of a dataset: its tags that are read from the file, and their keys."""
        self._file, self._hash = file, hashlib.sha256()
        self._places: dict[Any, list[tuple[int, int]]] = defaultdict(list)
        self._sizes: dict[Any, int] = defaultdict(int)

    def add(self, kind: int, rows: NucleiRows) -> None:
        """More nuclei of a class."""
        # Where each polygon begins among the numbers of its class. DICOM counts from 1.
        before = self.size((kind, "xy")) // np.dtype(self.dtype).itemsize
        self._add((kind, "starts"), (1 + before + 2 * rows.rings.starts).astype("<u4"))
        self._add((kind, "xy"), rows.rings.xy.astype(self.dtype))
        for name in MEASUREMENTS:
            known = np.flatnonzero(np.isfinite(rows.columns[name]))
            self._add((kind, name), rows.columns[name][known].astype("<f4"))
            self._add((kind, name, "at"), (1 + self.counts[kind] + known).astype("<u4"))
        self.counts[kind] += len(rows)

    def _add(self, key: Any, values: npt.NDArray[Any]) -> None:
        data = values.tobytes()
        self._places[key].append((self._file.tell(), len(data)))
        self._sizes[key] += len(data)
        self._hash.update(data)
        self._file.write(data)

    def stream(self, dataset: Any, element: str, key: Any) -> None:
        """Let the element come from the file. What highdicom made of it stands in until then."""
        if element not in dataset:
            setattr(dataset, element, bytes(4))
        self.elements[id(dataset)][dataset.data_element(element).tag] = key

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def size(self, key: Any) -> int:
        return self._sizes[key]

    def pieces(self, key: Any) -> Iterator[bytes]:
        for start, size in self._places[key]:
            self._file.seek(start)
            yield self._file.read(size)


def _source(about: About) -> Any:
    """What is taken over from the slide's image of level 0; the stated rule, if the slide is not DICOM."""
    pydicom = library("pydicom", "dicom")
    image = _level0(about)
    taken = pydicom.Dataset()
    if image is not None:
        wanted = [*_TAKEN, *_IDENTIFIED, *_MORE, *_SPECIMEN]
        taken = pydicom.dcmread(image, stop_before_pixels=True, specific_tags=wanted)
    taken.SOPClassUID, taken.Modality = headers.SLIDE_CLASS, "SM"
    for name in (*_IDENTIFIED, *_TAKEN):
        if name not in taken:
            setattr(taken, name, _uid(about, name) if name in _IDENTIFIED else "")
    return taken


def _level0(about: About) -> Path | None:
    """The file with the slide's level 0; None if the slide is not found, or is not DICOM."""
    slide = slide_beside(about.store, str(about.slide["file"]))
    if slide is None:
        return None
    inside = contents(str(slide))
    if inside.rule != "dicom":
        return None
    refuse_other(
        SlideRef(str(slide)), about.slide_sha256, "put the store's own slide there, or move this one away"
    )
    size = (about.slide["width_px"], about.slide["height_px"])
    levels = [(path, headers.header_of(path)) for path in inside.files]
    return next((path for path, header in levels if header.level and header.size == size), None)


def _uid(about: About, of: str) -> str:
    """An identifier that is always the same for this slide and purpose."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{about.slide_sha256} {of}').int}"


def _group(highdicom: Any, about: About, held: _Held, number: int, kind: int) -> Any:
    """The group of a class. highdicom gets one polygon and one value; `_Held.elements` has what replaces them."""
    from highdicom.color import CIELabColor

    ann, concept = highdicom.ann, highdicom.sr.CodedConcept
    measured = [name for name in MEASUREMENTS if held.size((kind, name))]
    group = ann.AnnotationGroup(
        number=number,
        uid=_uid(about, f"{held.digest} group {kind}"),
        label=about.classes[kind],
        annotated_property_category=concept(*STRUCTURE),
        annotated_property_type=concept(*NUCLEUS),
        graphic_type="POLYGON",
        graphic_data=[np.eye(3, 2, dtype=held.dtype)],
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(highdicom, about),
        measurements=[
            ann.Measurements(concept(*MEASUREMENTS[name][0]), np.ones(1), concept(*MEASUREMENTS[name][1]))
            for name in measured
        ],
        display_color=CIELabColor.from_rgb(*about.colours[kind]),
    )
    group.NumberOfAnnotations = held.counts[kind]
    single = held.dtype == np.float32
    held.stream(group, "PointCoordinatesData" if single else "DoublePointCoordinatesData", (kind, "xy"))
    held.stream(group, "LongPrimitivePointIndexList", (kind, "starts"))
    for name, measurement in zip(measured, group.MeasurementsSequence, strict=True):
        values = measurement.MeasurementValuesSequence[0]
        held.stream(values, "FloatingPointValues", (kind, name))
        if held.size((kind, name)) < held.size((kind, "starts")):
            held.stream(values, "AnnotationIndexList", (kind, name, "at"))
    return group


def _algorithm(highdicom: Any, about: About) -> Any:
    from pydicom.sr.codedict import codes

    manifest = manifests.read(about.store)
    name = str(manifest["made_from"]["config"].get("model", "unknown"))[:_LONGEST_LABEL].replace("\\", "_")
    version = str(manifest["versions"].get("wsi-nuc", "unknown"))
    return highdicom.AlgorithmIdentificationSequence(name, codes.cid7162.ArtificialIntelligence, version)


def _annotations(highdicom: Any, about: About, source: Any, held: _Held) -> Any:
    from pydicom.valuerep import DA, TM

    kinds = sorted(held.counts)
    dataset = highdicom.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type="2D",
        annotation_groups=[_group(highdicom, about, held, number, kind) for number, kind in enumerate(kinds, 1)],
        series_instance_uid=_uid(about, f"{held.digest} series"),
        series_number=1,
        sop_instance_uid=_uid(about, f"{held.digest} annotations"),
        instance_number=1,
        manufacturer="wsi-nuc",
        manufacturer_model_name="wsi-nuc",
        software_versions=str(manifests.read(about.store)["versions"].get("wsi-nuc", "unknown")),
        device_serial_number="0",
        series_description=f"Nuclei of {about.slide['file']}"[:_LONGEST_LABEL].replace("\\", "_"),
        content_label="NUCLEI",
        content_description="nuclei, one group per class",
        specific_character_set=_UTF8,
    )
    dataset.Laterality = ""
    # The clock would give other bytes for the same identifier.
    for equipment in dataset.ContributingEquipmentSequence:
        del equipment.ContributionDateTime
    dataset.ContentDate = dataset.InstanceCreationDate = DA(source.ContentDate or _NO_DATE)
    dataset.ContentTime = dataset.InstanceCreationTime = TM(source.ContentTime or _NO_TIME)
    return dataset


def _write_file(dataset: Any, held: _Held, file: IO[bytes]) -> None:
    from pydicom.filebase import DicomIO
    from pydicom.filewriter import write_file_meta_info

    out = DicomIO(file)
    out.is_little_endian, out.is_implicit_VR = True, False
    out.write(bytes(headers.MAGIC_AT) + headers.MAGIC)
    write_file_meta_info(out, dataset.file_meta)
    _write(out, dataset, held)


def _write(out: Any, dataset: Any, held: _Held) -> None:
    """As pydicom writes, but with sequences of undefined length, so that none is in memory as a whole."""
    from pydicom.filewriter import write_data_element

    streamed = held.elements.get(id(dataset), {})
    for tag in sorted(dataset.keys()):
        element = dataset[tag]
        if tag not in streamed and element.VR != "SQ":
            write_data_element(out, element, _UTF8)
            continue
        out.write_tag(tag)
        out.write(element.VR.encode() + bytes(2))
        if tag in streamed:
            out.write_UL(held.size(streamed[tag]))
            for piece in held.pieces(streamed[tag]):
                out.write(piece)
            continue
        out.write_UL(headers.UNDEFINED)
        for item in element.value:
            out.write_tag(_ITEM)
            out.write_UL(headers.UNDEFINED)
            _write(out, item, held)
            out.write_tag(_ITEM_END)
            out.write_UL(0)
        out.write_tag(_SEQUENCE_END)
        out.write_UL(0)
