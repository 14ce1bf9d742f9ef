"""Several models, or one used in several ways, on several data sets: the papers' tables and their ablations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wsi_nuc.config import ConfigError, Section, assign, load_section, parse_assignment
from wsi_nuc.datasets.images import chosen
from wsi_nuc.datasets.record import Dataset, LabelledImage, SourceConfig
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images
from wsi_nuc.evaluation.protocol import ImageScore
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model, model_spec

Tell = Callable[[str, str, float], None]


class VariantConfig(Section):
    """`use`: values of the model file's section `use` to change. `data`: names of the sets it is scored on (all
    where empty). `row`: variants of one row are the splits that its numbers are averaged over. `home`: the variant
    that was trained on these data, for Table S2."""

    model: str
    oracle: bool = False
    use: dict[str, Any] = Field(default_factory=dict)
    data: tuple[str, ...] = ()
    row: str = ""
    home: str = ""


class EvaluateConfig(Section):
    """Everything that `wsi-nuc evaluate` can be told. `classes`: model's class name -> data set's. `protocol`:
    "pannuke", "images", or "auto" by the reader of the data. `tables`: of the paper, to be laid out beside the
    overview; PanNuke's own (1 to 3) always are."""

    data: dict[str, SourceConfig] = Field(min_length=1)
    variants: dict[str, VariantConfig] = Field(min_length=1)
    classes: dict[str, str] = Field(default_factory=dict)
    protocol: Literal["auto", "images", "pannuke"] = "auto"
    tables: tuple[Literal["4", "S2", "S3"], ...] = ()
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    out: Path | None = None


def load_evaluate_config(
    file: Path | None, assignments: Iterable[str], options: Mapping[str, Any], data: Mapping[str, Any]
) -> EvaluateConfig:
    """`options` may hold `models` and `oracle`, and `data` a path: they stand for the file's variants and data."""
    given = {key: value for key, value in options.items() if key not in ("models", "oracle")}
    models, oracle = options.get("models"), bool(options.get("oracle"))
    if models:
        given["variants"] = {_name(model, oracle): {"model": model, "oracle": oracle} for model in models}
    elif oracle:
        raise ConfigError("--oracle goes with --model; in a configuration file it is a key of the variant")
    if data.get("path"):
        source = {key: value for key, value in data.items() if value is not None}
        given["data"] = {str(data.get("name") or Path(data["path"]).name): source}
    assignments = list(assignments)
    for path, value in map(parse_assignment, assignments):
        if path[0] in ("data", "variants") and path[0] in given and path[1:]:
            assign(
                given, path, value
            )  # options replace a file's data and variants, but not what --set says of them
    config = load_section(EvaluateConfig, file, assignments, given)
    for name, variant in config.variants.items():
        if variant.home and variant.home not in config.variants:
            raise ConfigError(f"variants.{name}.home: {variant.home} is none of {', '.join(config.variants)}")
        missing = set(variant.data) - set(config.data)
        if missing:
            raise ConfigError(f"variants.{name}.data: {missing.pop()} is none of {', '.join(config.data)}")
    return config


def _name(model: str, oracle: bool) -> str:
    path = Path(model)
    stem = f"{path.parent.name}/{path.stem}" if path.suffix and path.parent.name else path.stem
    return f"{stem} (oracle)" if oracle else stem


@dataclass(frozen=True, slots=True)
class Result:
    """Scores of one variant on one set. `notes`: what was mended in its labels, classes that one side lacks."""

    variant: str
    row: str
    data: str
    classes: tuple[str, ...]
    pannuke: bool
    scores: tuple[ImageScore, ...]
    notes: tuple[str, ...] = ()


def evaluate_variants(config: EvaluateConfig, tell: Tell | None = None) -> list[Result]:
    """Every variant on every set it is meant for, in the order of the configuration."""
    for variant in config.variants.values():
        model_spec(variant.model, variant.use)  # a mistake in the last one is told before the first is scored
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
    notes = [f"{of}: {what}: {count}" for what, count in repairs.items()]
    notes += unmatched(name, of, [config.classes.get(c, c) for c in model.spec.classes], names)
    return Result(name, variant.row or name, of, names, pannuke, tuple(scores), tuple(notes))


def counting(data: Dataset, repairs: Counter[str]) -> Iterator[LabelledImage]:
    for image in data:
        repairs.update(image.repairs)
        yield image


def unmatched(variant: str, of: str, model: Sequence[str], data: Sequence[str]) -> list[str]:
    """A line where model and data speak of the same classes, but not of all."""
    pairs = (("data", sorted(set(data) - set(model))), ("model", sorted(set(model) - set(data))))
    only = [f"{', '.join(names)} only in the {side}" for side, names in pairs if names]
    return [f"{variant} on {of}: of the classes are {'; '.join(only)} (see `classes`)"] if data and only else []
