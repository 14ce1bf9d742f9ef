"""The embedding of a model, at the place of each nucleus: the same however it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.features.tissue import NAMES, Tissue, slide_and_store
from tests.models.looking import embed
from tests.models.nets import random_batch, stir, tiny_settings
from tests.store.build import CLASSES
from tests.tiling.scenes import ArraySource
from wsi_nuc.errors import UsageError
from wsi_nuc.executors.base import SerialExecutor
from wsi_nuc.features.embed import embeddings, model_ref
from wsi_nuc.features.job import GroupJob, ModelRef
from wsi_nuc.features.running import add_features
from wsi_nuc.models.promptnucseg.build import save_net
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.registry import load_model
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import read
from wsi_nuc.types import Box, SlideRef

SERIAL = SerialExecutor(lambda: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    net = stir(PromptNucSegNet(tiny_settings()), scale=0.1)
    save_net(path, net, tiny_settings())
    return model_ref(str(path), "cpu")


def test_points_get_what_the_encoder_sees_there(model: ModelRef) -> None:
    """At the middle of a token it is the token, between two their mean. The order of points does not matter."""
    loaded, batch = load_model(model.model, "cpu"), random_batch(1, 256)
    at = np.array([[104, 88], [120, 88], [112, 88], [104, 88]], np.float32)
    rows = embed(loaded, batch, at, np.zeros(4, np.int64))
    assert rows.shape == (4, model.size)
    assert np.allclose((rows[0] + rows[1]) / 2, rows[2], atol=1e-5)
    assert np.array_equal(rows[0], rows[3])
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    back = embed(loaded, batch, at[::-1].copy(), np.zeros(4, np.int64))
    assert np.array_equal(back[::-1], rows)


def test_where_the_slide_has_no_pixels_there_is_no_embedding(model: ModelRef) -> None:
    missing = np.zeros((128, 192), np.bool_)
    missing[64:, :64] = True
    source = ArraySource(np.full((128, 192, 3), 120, np.uint8), missing=missing, damaged=(Box(70, 10, 71, 11),))
    xy = np.array([[20.0, 20.0], [65.0, 60.0], [100.0, 10.0], [20.0, 70.0], [150.0, 100.0]])
    rows = embeddings(source, GroupJob("", SlideRef("x"), 0, 0.25, CLASSES, model), xy)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True, True, False]
    assert np.isfinite(rows[[0, 4]]).all()


def test_the_default_model_has_an_embedding(tmp_path: Path) -> None:
    import anndata

    ref = model_ref("default", "cpu")
    slide, store = slide_and_store(tmp_path, Tissue.of(16, edge_um=64), 0.5)
    add_features(made_folder(store.parent) / store.name, slide, SERIAL.run, ref)
    columns = anndata.read_zarr(store / "tables/nuclei_table").X[:, -ref.size :]
    assert np.isfinite(columns).all()
    assert len(np.unique(columns, axis=0)) == 16


def test_columns_of_the_embedding_come_last(model: ModelRef, tmp_path: Path) -> None:
    import anndata

    slide, store = slide_and_store(tmp_path, Tissue.of(16, edge_um=64), 0.5)
    plain = add_features(made_folder(store.parent) / store.name, slide, SERIAL.run)
    with_it = add_features(made_folder(store.parent) / store.name, slide, SERIAL.run, model)
    table = anndata.read_zarr(store / "tables/nuclei_table")
    assert table.shape == (16, len(CLASSES) + len(NAMES) + model.size)
    assert list(table.var_names[-2:]) == ["embedding_254", "embedding_255"]
    assert np.isfinite(table.X).all()
    assert np.ptp(table.X[:, -model.size :], axis=0).max() > 1e-3
    assert plain.manifest["digest"] != with_it.manifest["digest"]
    assert with_it.manifest["made_from"]["config"]["features"]["embedding"] == model.weights_sha256
    assert not add_features(made_folder(store.parent) / store.name, slide, SERIAL.run).new, (
        "a store that has more than was asked for keeps it"
    )


def test_row_groups_do_not_show(model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for rows in (16384, 5):
        monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", rows)
        slide, store = slide_and_store(tmp_path / str(rows), Tissue.of(16, edge_um=64), 0.5)
        add_features(made_folder(store.parent) / store.name, slide, SERIAL.run, model)
        digests.append(_table(store))
    assert np.array_equal(digests[0], digests[1])


def _table(store: Path) -> np.ndarray:
    import anndata

    return np.asarray(anndata.read_zarr(store / "tables/nuclei_table").X)[:, len(CLASSES) + len(NAMES) :]


def test_a_model_without_an_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no embedding"):
        model_ref("classical", "cpu")


def test_a_run_with_a_model_without_an_embedding_says_so(tmp_path: Path) -> None:
    from wsi_nuc.config import RunConfig
    from wsi_nuc.features.running import run_slides

    slide, _ = slide_and_store(tmp_path, Tissue.of(4, edge_um=64), 0.5)
    config = RunConfig(out=tmp_path / "runs", scheduler="serial", model="classical", embedding=True, mpp=0.5)
    (result,) = run_slides(config, [slide.path])
    assert "no embedding" in result.error


def test_a_run_with_the_embedding(model: ModelRef, tmp_path: Path) -> None:
    """Random weights may find nuclei or none. In both cases the table has the columns."""
    import anndata

    from wsi_nuc.config import RunConfig
    from wsi_nuc.features.running import run_slides

    slide, _ = slide_and_store(tmp_path, Tissue.of(4, edge_um=64), 0.25)
    options = {"model": model.model, "embedding": True, "tissue": "none", "mpp": 0.25}
    (result,) = run_slides(RunConfig(out=tmp_path / "runs", scheduler="serial", **options), [slide.path])
    assert not result.error
    columns = list(anndata.read_zarr(Path(result.store) / "tables/nuclei_table").var_names)
    assert columns[:2] == ["probability_round", "probability_long"]
    assert columns[-1] == "embedding_255"
    assert read(Path(result.store))["made_from"]["config"]["features"]["embedding"] == model.weights_sha256
    later = SlideRef(slide.path, mpp=0.25)
    assert not add_features(made_folder(tmp_path / "runs") / Path(result.store).name, later, SERIAL.run, model).new
