"""Images of a folder with dots beside them, and the share of dots that is held back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.training.dots.drawn import box, point, write_csv, write_geojson
from wsi_nuc.datasets.images import at_mpp
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.training.dots.config import DotsConfig
from wsi_nuc.training.dots.holdback import held_back
from wsi_nuc.training.dots.images import enough, images_of

RNG = np.random.default_rng(0)


def drawn_image(folder: Path, name: str, dots: int = 20) -> Any:
    """A pink image of 128 x 160 pixels with dark discs, and where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = np.full((128, 160, 3), (225, 185, 215), np.uint8)
    xy = np.array([(8 + 16 * (i % 9), 8 + 16 * (i // 9)) for i in range(dots)])
    for x, y in xy.tolist():
        cv2.circle(rgb, (x, y), 5, (95, 60, 130), -1)
    cv2.imwrite(str(folder / f"{name}.png"), rgb[:, :, ::-1])
    return xy


def test_files_beside_images_and_one_table_give_the_same(tmp_path: Path) -> None:
    images, points = tmp_path / "images", tmp_path / "points"
    points.mkdir()
    lines = ["image,x,y,class"]
    for name in ("a", "b"):
        xy = drawn_image(images, name)
        write_csv(points / f"{name}.csv", xy, ["t"] * 19 + ["s"])
        lines += [f"{name}.png,{x},{y},{'t' if i < 19 else 's'}" for i, (x, y) in enumerate(xy.tolist())]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    one, two = (
        images_of(DotsConfig(slide=str(images), points=tmp_path / name, mpp=0.5), 0.25)
        for name in ("points", "all.csv")
    )
    assert (one.classes, one.dots, one.whole_images) == (("s", "t"), 40, 2)
    for a, b in zip(one.images, two.images, strict=True):
        assert a.points_xy is not None
        assert b.points_xy is not None
        assert b.point_types is not None
        assert a.rgb.shape == (256, 320, 3)
        assert a.points_xy.tolist() == b.points_xy.tolist()
        assert a.points_xy[0].tolist() == [17, 17]
        assert b.point_types.tolist() == [1] * 19 + [0]


def test_a_data_set_with_points_works_as_it_is(tmp_path: Path) -> None:
    for name in "abcd":
        xy = drawn_image(tmp_path / "set" / "images", name)
        (tmp_path / "set" / "points").mkdir(exist_ok=True)
        write_csv(tmp_path / "set" / "points" / f"{name}.csv", xy, ["t"] * 20)
    (tmp_path / "set" / "dataset.json").write_text(json.dumps({"mpp": 0.25, "point_classes": ["s", "t"]}))
    settings = DotsConfig(slide=str(tmp_path / "set"))
    gathered = images_of(settings, 0.25, ("t", "s"))
    assert gathered.dots == 80
    assert gathered.repairs["class 's' of the model that no dot has"] == 1
    enough(gathered, settings)
    with pytest.raises(UsageError, match="80 dots"):
        enough(gathered, settings.model_copy(update={"least_images": 5}))


def test_a_region_on_an_image_says_what_is_known(tmp_path: Path) -> None:
    xy = drawn_image(tmp_path / "images", "a", dots=9)
    (tmp_path / "points").mkdir()
    write_geojson(tmp_path / "points" / "a.geojson", [box(0, 60, 160, 128), *map(point, xy.tolist())])
    (image,) = images_of(
        DotsConfig(slide=str(tmp_path / "images"), points=tmp_path / "points", surroundings_um=2), 0.25
    ).images
    assert image.known is not None
    assert image.known[60:].all()
    assert not image.known[20:60].any()
    assert image.known[8, 8]
    finer = at_mpp(image, 0.125).known
    assert finer is not None
    assert (finer[::2, ::2] == image.known).all()
    assert (finer[1::2, 1::2] == image.known).all()


def test_dots_of_other_images_are_refused(tmp_path: Path) -> None:
    xy = drawn_image(tmp_path / "images", "a")
    (tmp_path / "points").mkdir()
    write_csv(tmp_path / "points" / "b.csv", xy)
    settings = DotsConfig(slide=str(tmp_path / "images"), points=tmp_path / "points")
    with pytest.raises(UsageError, match="has dots for 'b'"):
        images_of(settings, 0.25)
    (tmp_path / "points" / "b.csv").unlink()
    write_csv(tmp_path / "points" / "a.csv", xy * 10)
    with pytest.raises(UsageError, match="outside of their images"):
        images_of(settings, 0.25)
    with pytest.raises(UsageError, match="does not say which image"):
        images_of(settings.model_copy(update={"points": write_geojson(tmp_path / "one.geojson", [])}), 0.25)
    with pytest.raises(UsageError, match="no labelled images"):
        images_of(settings.model_copy(update={"points": None}), 0.25)


def dotted(number: int, group: str = "", dots: int = 30, size: int = 200) -> LabelledImage:
    xy = RNG.uniform(0, size, (dots, 2))
    rgb = np.zeros((size, size, 3), np.uint8)
    return LabelledImage(str(number), rgb, points_xy=xy, point_types=np.arange(dots), mpp=0.5, group=group)


def places(images: tuple[LabelledImage, ...]) -> set[tuple[str, float, float]]:
    return {(i.id, x, y) for i in images if i.points_xy is not None for x, y in i.points_xy.tolist()}


def test_whole_groups_are_held_back() -> None:
    images = [dotted(i, group=f"patient {i // 2}") for i in range(40)]
    split = held_back(images)
    assert {i.group for i in split.training}.isdisjoint(i.group for i in split.held_back)
    assert len(split.training) + len(split.held_back) == 40
    assert len(places(split.held_back)) == 120
    assert split == held_back(images)
    assert places(split.held_back) != places(held_back(images, seed=1).held_back)


def test_of_few_images_squares_are_held_back_and_unknown_to_the_training() -> None:
    for images in ([dotted(0, dots=300)], [dotted(i, dots=90) for i in range(4)]):
        split = held_back(images)
        total = sum(i.count or 0 for i in images)
        assert 0.07 * total <= len(places(split.held_back)) <= 0.14 * total
        assert len(places(split.training)) > 0.6 * total
        assert places(split.training).isdisjoint(places(split.held_back))
        kept = {i.id: i for i in split.training}
        for image in split.held_back:
            other = kept[image.id].known
            assert image.known is not None
            assert other is not None
            assert image.points_xy is not None
            assert not (image.known & other).any()
            for x, y in image.points_xy.astype(int).tolist():
                assert image.known[y, x]
                # 6 um are 12 pixels here.
                assert not other[max(0, y - 11) : y + 12, max(0, x - 11) : x + 12].any()
        for image in split.training:
            assert image.points_xy is not None
            if image.known is not None:
                x, y = image.points_xy.astype(int).T
                assert image.known[y, x].all()


def test_what_was_unknown_stays_unknown() -> None:
    known = np.zeros((200, 200), bool)
    known[:100] = True
    image = dotted(0, dots=200)
    assert image.points_xy is not None
    upper = image.points_xy[:, 1] < 100
    image = replace(image, known=known, points_xy=image.points_xy[upper], point_types=np.arange(int(upper.sum())))
    split = held_back([image])
    for part in (*split.training, *split.held_back):
        assert part.known is not None
        assert not part.known[100:].any()
