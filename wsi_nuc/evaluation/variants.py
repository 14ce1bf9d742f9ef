"""Several models, or a model used in several ways, on several data sets: for the papers' tables and ablations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wsi_nuc.config import Section
from wsi_nuc.configuring import assign, load_section, parse_assignment
from wsi_nuc.datasets.images import chosen
from wsi_nuc.datasets.record import Dataset, LabelledImage, SourceConfig
from wsi_nuc.errors import UsageError, choices
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images
from wsi_nuc.evaluation.protocol import ImageScore
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model, model_spec

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


class EvaluateConfig(Section):
    """All settings of `wsi-nuc evaluate`."""

    data: dict[str, SourceConfig] = Field(min_length=1)
    """Data sets by name."""
    variants: dict[str, VariantConfig] = Field(min_length=1)
    """Variants by name."""
    classes: dict[str, str] = Field(default_factory=dict)
    """The model's class name -> the data set's, where they differ."""
    protocol: Literal["auto", "images", "pannuke"] = "auto"
    """With "auto", the reader of the data decides."""
    tables: tuple[Literal["4", "S2", "S3"], ...] = ()
    """Tables of the paper to print beside the overview. Tables 1 to 3 are always printed for PanNuke."""
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
    return config


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


def evaluate_variants(config: EvaluateConfig, tell: Tell | None = None) -> list[Result]:
    """Every variant on each of its sets, in the order of the configuration."""
    for variant in config.variants.values():
        model_spec(variant.model, variant.use)  # a mistake in the last variant shows before the first is scored
    sets = {name: chosen(source) for name, source in config.data.items()}
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
    pannuke = config.protocol == "pannuke" or (config.protocol == "auto" and data.reader == "pannuke")
    judged = max((len(score.panoptic_by_class) or len(score.detection_by_class) for score in scores), default=0)
    names = data.card.classes if judged == len(data.card.classes) else data.card.point_classes
    names = names if judged else ()
    notes = [f"{of}: {repair}: {count}" for repair, count in repairs.items()]
    notes += unmatched(name, of, [config.classes.get(c, c) for c in model.spec.classes], names)
    return Result(name, variant.row or name, of, names, pannuke, tuple(scores), tuple(notes))


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
