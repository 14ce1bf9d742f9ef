"""Several models, or a model used in several ways, on several data sets: for the papers' tables and ablations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wsi_nuc.config import Section
from wsi_nuc.configuring import assign, load_section, parse_assignment
from wsi_nuc.datasets.images import combined
from wsi_nuc.datasets.record import Dataset, LabelledImage, SourceConfig
from wsi_nuc.errors import UsageError, choices
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images, predict_image
from wsi_nuc.evaluation.protocol import ImageScore
from wsi_nuc.evaluation.tables import Cost
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.models.weights import read_info

TILE_PX = 256
TIMED = 20  # images that the speed is measured on

Tell = Callable[[str, str, float], None]


class VariantConfig(Section):
    """A model and how it is used."""

    model: str
    """A model's name, or the path of its file."""
    oracle: bool = False
    """The annotated points are the prompts."""
    use: dict[str, Any] = Field(default_factory=dict)
    """Values that replace those of the model file's section `use`."""
    data: tuple[str, ...] = ()
    """Names of the sets that it is scored on; empty: all of them."""
    row: str = ""
    """The row of the tables; empty: the variant's name. Variants with the same row are splits, and the row shows
    their means."""
    home: str = ""
    """The variant that was trained on these data, for Table S2."""
    parts: tuple[Literal["FT", "AUX", "MAPF", "NP"], ...] | None = None
    """The row of Table 6 that it is: the parts of the method that it has. None: not in this table."""
    trained_negatives: int | None = None
    """The row of Table 7 that it is: the negatives of its training. Those of the test are `use.negatives`, and
    `oracle` chooses the columns."""


class ColumnConfig(SourceConfig):
    """A data set of the tables: a folder, or several."""

    more: tuple[SourceConfig, ...] = ()
    """Further folders whose images belong to it. Images of two folders may have the same name."""


Number = Literal["1", "2", "3", "4", "5", "6", "7", "8", "S2", "S3", "overlap"]
OF_PANNUKE = ("1", "2", "3", "5", "8")


class EvaluateConfig(Section):
    """All settings of `wsi-nuc evaluate`."""

    data: dict[str, ColumnConfig] = Field(min_length=1)
    """Data sets by name."""
    variants: dict[str, VariantConfig] = Field(min_length=1)
    """Variants by name."""
    classes: dict[str, str] = Field(default_factory=dict)
    """The model's class name -> the data set's, where they differ."""
    protocol: Literal["auto", "images", "pannuke"] = "auto"
    """With "auto", the reader of the data decides."""
    tables: tuple[Number, ...] = ()
    """Tables of the paper to print beside the overview. Empty: Tables 1 to 3 for PanNuke's data."""
    reference: str = ""
    """The row that the others are tested against; empty: on each data set the first row."""
    draws: int = Field(default=2000, ge=1, le=100_000)
    """Draws of the bootstrap."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    out: Path | None = None
    """Folder for the tables and scores."""


def load_evaluate_config(
    file: Path | None, assignments: Iterable[str], options: Mapping[str, Any], data: Mapping[str, Any]
) -> EvaluateConfig:
    """The checked settings. `models` and `oracle` in `options`, and a path in `data`, replace the file's variants
    and data."""
    given = {key: value for key, value in options.items() if key not in ("models", "oracle")}
    models, oracle = options.get("models"), bool(options.get("oracle"))
    if models:
        given["variants"] = {_name(model, oracle): {"model": model, "oracle": oracle} for model in models}
    elif oracle:
        raise UsageError("--oracle", "goes with --model", "in a file, it is a key of the variant")
    if data.get("path"):
        source = {key: value for key, value in data.items() if value is not None}
        given["data"] = {str(data.get("name") or Path(data["path"]).name): source}
    assignments = list(assignments)
    for path, value in map(parse_assignment, assignments):
        if path[0] in ("data", "variants") and path[0] in given and path[1:]:
            # Options replace the data and variants of a file, but not what --set says about them.
            assign(given, path, value)
    config = load_section(EvaluateConfig, file, assignments, given)
    for name, variant in config.variants.items():
        if variant.home and variant.home not in config.variants:
            cause = f"{variant.home} is not a variant"
            raise UsageError(f"variants.{name}.home", cause, choices(variant.home, config.variants))
        missing = set(variant.data) - set(config.data)
        if missing:
            cause = f"{min(missing)} is not one of the data sets"
            raise UsageError(f"variants.{name}.data", cause, choices(min(missing), config.data))
    rows = {variant.row or name: None for name, variant in config.variants.items()}
    if config.reference and config.reference not in rows:
        raise UsageError(f"reference {config.reference}", "is not a row", choices(config.reference, rows))
    _check_tables(config)
    return config


def _check_tables(config: EvaluateConfig) -> None:
    """A table whose rows no variant names would be empty."""
    variants = config.variants.values()
    needed = {
        "6": ("parts", [v for v in variants if v.parts is not None]),
        "7": ("trained_negatives", [v for v in variants if v.trained_negatives is not None]),
        "overlap": ("use.overlap_px", [v for v in variants if "overlap_px" in v.use]),
        "S2": ("home", [v for v in variants if v.home]),
    }
    for number in config.tables:
        key, having = needed.get(number, ("", [None]))
        if not having:
            raise UsageError(f"tables {number}", f"no variant has {key}", f"set variants.NAME.{key}")


def _name(model: str, oracle: bool) -> str:
    path = Path(model)
    stem = f"{path.parent.name}/{path.stem}" if path.suffix and path.parent.name else path.stem
    return f"{stem} (oracle)" if oracle else stem


@dataclass(frozen=True, slots=True)
class Result:
    """The scores of a variant on a data set."""

    variant: str
    """Name of the variant."""
    row: str
    """Its row in the tables."""
    data: str
    """Name of the data set."""
    classes: tuple[str, ...]
    """The classes that were compared; empty: none."""
    pannuke: bool
    """PanNuke's protocol applies."""
    scores: tuple[ImageScore, ...]
    """One per image."""
    notes: tuple[str, ...] = ()
    """What was repaired in the labels, and classes that one side lacks."""
    cost: Cost | None = None
    """For Table 5."""


def evaluate_variants(config: EvaluateConfig, tell: Tell | None = None) -> list[Result]:
    """Every variant on each of its sets, in the order of the configuration."""
    for variant in config.variants.values():
        model_spec(variant.model, variant.use)  # a mistake in the last variant shows before the first is scored
    sets = {name: combined((column, *column.more)) for name, column in config.data.items()}
    asked = sorted(set(OF_PANNUKE) & set(config.tables))
    if asked and not any(of_pannuke(config, data) for data in sets.values()):
        remedy = "set protocol: pannuke if they have tissues and classes as PanNuke has"
        raise UsageError(f"data {', '.join(sets)}", f"Table {asked[0]} is about PanNuke", remedy)
    results = []
    for name, variant in config.variants.items():
        model = load_model(variant.model, config.device, variant.use)
        wanted = variant.data or tuple(sets)
        results += [_result(config, name, model, of, sets[of], tell) for of in wanted]
    return results


def _result(
    config: EvaluateConfig, name: str, model: NucleiModel, of: str, data: Dataset, tell: Tell | None
) -> Result:
    variant = config.variants[name]
    scoring = Scoring(oracle=variant.oracle, classes=config.classes, mpp=data.card.mpp)
    repairs: Counter[str] = Counter()
    scores = evaluate_images(
        model,
        counting(data, repairs),
        scoring,
        lambda score: tell(name, score.id, score.panoptic.pq) if tell else None,
    )
    judged = max((len(score.panoptic_by_class) or len(score.detection_by_class) for score in scores), default=0)
    names = data.card.classes if judged == len(data.card.classes) else data.card.point_classes
    names = names if judged else ()
    notes = [f"{of}: {repair}: {count}" for repair, count in repairs.items()]
    notes += unmatched(name, of, [config.classes.get(c, c) for c in model.spec.classes], names)
    cost = cost_of(variant.model, config.device, model, data) if "5" in config.tables else None
    pannuke = of_pannuke(config, data)
    return Result(name, variant.row or name, of, names, pannuke, tuple(scores), tuple(notes), cost)


def of_pannuke(config: EvaluateConfig, data: Dataset) -> bool:
    """Whether PanNuke's protocol applies."""
    return config.protocol == "pannuke" or (config.protocol == "auto" and data.reader == "pannuke")


def cost_of(file: str, device: str, model: NucleiModel, data: Dataset) -> Cost:
    """What a model costs: measured, and for PromptNucSeg counted from its file's header."""
    import torch

    from wsi_nuc.models.device import Device
    from wsi_nuc.models.promptnucseg import cost
    from wsi_nuc.models.promptnucseg.build import ARCHITECTURE
    from wsi_nuc.models.promptnucseg.settings import Settings

    on = Device.of(device, "fp32").torch_device
    name = torch.cuda.get_device_name(on) if on.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    measured = Cost(tiles_per_s=tiles_per_s(model, data), device=name)
    if not Path(file).is_file() or (info := read_info(file)).architecture != ARCHITECTURE:
        return measured
    net = cost.network(Settings.from_header(info.details))
    return replace(
        measured,
        parameters_m=cost.parameters_m(net),
        published_gmacs=cost.published_gmacs(net),
        gmacs=cost.gmacs_here(net),
    )


def tiles_per_s(model: NucleiModel, data: Dataset) -> float:
    """Tiles of 256 px per second, over a few images after a first one."""
    first, *others = [data[i] for i in range(min(len(data), TIMED + 1))]
    timed = others or [first]
    predict_image(model, first)
    start = time.perf_counter()
    for image in timed:
        predict_image(model, image)
    area = sum(image.rgb.shape[0] * image.rgb.shape[1] for image in timed)
    return float(area / TILE_PX**2 / (time.perf_counter() - start))


def counting(data: Dataset, repairs: Counter[str]) -> Iterator[LabelledImage]:
    """The images of a set; on the way, their repairs are counted."""
    for image in data:
        repairs.update(image.repairs)
        yield image


def unmatched(variant: str, of: str, model: Sequence[str], data: Sequence[str]) -> list[str]:
    """A line where model and data share classes, but not all of them."""
    pairs = (("data", sorted(set(data) - set(model))), ("model", sorted(set(model) - set(data))))
    only = [f"{', '.join(names)} only in the {side}" for side, names in pairs if names]
    return [f"{variant} on {of}: of the classes are {'; '.join(only)} (see `classes`)"] if data and only else []
