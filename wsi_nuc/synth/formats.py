"""The directories that make a pyramid an Aperio SVS or an OME-TIFF."""

from __future__ import annotations

from wsi_nuc.synth.pyramid import SUBSAMPLING, TILE_PX, Pyramid
from wsi_nuc.synth.spec import SynthSpec
from wsi_nuc.synth.tiff import LONG, SHORT, Entry, TiffFile, entry, rational, text

_OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'Creator="wsi-nuc synth"><Image ID="Image:0" Name="synthetic"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
    'Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1" Interleaved="true" '
    'PhysicalSizeX="{mpp!r}" PhysicalSizeXUnit="µm" PhysicalSizeY="{mpp!r}" PhysicalSizeYUnit="µm">'
    '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)


def aperio_directories(tiff: TiffFile, pyramid: Pyramid, spec: SynthSpec) -> None:
    """Levels as a chain of directories, described in Aperio's words."""
    width, height = spec.size, spec.height_px
    shape = f"{width}x{height} [0,0 {width}x{height}] ({TILE_PX}x{TILE_PX})"
    tail = f"|AppMag = {round(10 / spec.mpp)}|MPP = {max(f'{spec.mpp:.4f}', repr(float(spec.mpp)), key=len)}"
    for image in pyramid.images:
        smaller = "" if image.width == width else f" -> {image.width}x{image.height}"
        words = f"Aperio Image Library (wsi-nuc synth)\r\n{shape}{smaller} JPEG/RGB Q={spec.quality}"
        image.entries.append(text(270, words + tail))
    view = pyramid.thumbnail()
    view.entries.append(
        text(270, f"Aperio Image Library (wsi-nuc synth)\r\n{width}x{height} -> {view.width}x{view.height} - ")
    )
    first, *smaller_levels = _with_resolution(tiff, pyramid, spec)
    # Aperio's order: the thumbnail comes second.
    tiff.finish([first, tiff.stripped_entries(view, SUBSAMPLING), *smaller_levels])


def ome_directories(tiff: TiffFile, pyramid: Pyramid, spec: SynthSpec) -> None:
    """One main directory with the OME-XML; the smaller levels are its SubIFDs."""
    described = _OME.format(width=spec.size, height=spec.height_px, mpp=float(spec.mpp))
    pyramid.images[0].entries.append(text(270, described))
    for image in pyramid.images[1:]:
        image.entries.append(entry(254, LONG, [1]))
    main, *smaller = _with_resolution(tiff, pyramid, spec)
    tiff.finish([main], smaller)


def _with_resolution(tiff: TiffFile, pyramid: Pyramid, spec: SynthSpec) -> list[list[Entry]]:
    listed = []
    for image in pyramid.images:
        # Pixels per centimetre of this level.
        per_cm = 10_000 / spec.mpp * image.width / spec.size
        image.entries += [rational(282, per_cm), rational(283, per_cm), entry(296, SHORT, [3])]
        listed.append(tiff.tiled_entries(image, SUBSAMPLING))
    return listed
