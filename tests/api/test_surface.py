"""The public names, what they take, and that naming the package costs nothing. A change here is one for users."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import wsi_nuc
from wsi_nuc.config import RunConfig

NAMES = [
    "Result",
    "RunConfig",
    "SlideResult",
    "describe_slide",
    "load_model",
    "open",
    "open_slide",
    "run_slides",
    "segment",
    "verify",
]
SIGNATURES = {
    "describe_slide": "slide, model='default', reader='auto', mpp=None, tissue='auto', check=True",
    "load_model": "name_or_file, device='cpu', options=None",
    "open": "store, slide=None",
    "open_slide": "ref",
    "run_slides": "config, slides, emit=<function ignore>, out=None, class_tables=True",
    "segment": "slide, *, model='default', mpp=None, out=None, progress_bar=True, **settings",
    "verify": "store",
}
RESULT = {
    "classes": None,
    "close": "",
    "features": None,
    "nuclei": "box=None, classes=(), min_score=0.0, columns=()",
    "picture": "px=800",
    "slide": None,
    "tiles": "nuclei, um=32.0, px=64",
    "tissue": None,
}
CONFIG = (
    "out model device workers scheduler reader mpp tissue roi region_size labels features embedding dab "
    "dab_vectors allow_bad_tiles overwrite pack report keep_parts scratch stage quiet answers inference "
    "stitch dask"
)


def taken(function: object) -> str:
    """What it takes, without `self` and annotations."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    text = str(inspect.Signature([parameter for parameter in bare if parameter.name != "self"]))
    return text[1:-1].replace(f"<function ignore at {hex(id(bare[2].default))}>", "<function ignore>") if (
        len(bare) > 2 and inspect.isfunction(bare[2].default)
    ) else text[1:-1]  # fmt: skip


def test_there_are_ten_names_at_most_and_each_is_there() -> None:
    assert wsi_nuc.__all__ == NAMES
    assert len(NAMES) <= 10
    assert [name for name in NAMES if not callable(getattr(wsi_nuc, name))] == []
    assert {*NAMES, "__version__"} == set(dir(wsi_nuc))
    with pytest.raises(AttributeError, match="no attribute 'segmented'"):
        _ = wsi_nuc.segmented


def test_the_stub_for_type_checkers_names_the_same_objects() -> None:
    stub = inspect.getsourcefile(wsi_nuc)
    assert stub is not None
    scope: dict[str, object] = {}
    exec(open(f"{stub}i").read(), scope)  # noqa: PTH123, SIM115 - the stub is a module of ours
    assert scope["__all__"] == NAMES
    assert all(scope[name] is getattr(wsi_nuc, name) for name in NAMES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_takes_what_it_took(name: str) -> None:
    function = getattr(wsi_nuc, name)
    assert taken(function) == SIGNATURES[name]
    annotations = inspect.signature(function)
    assert all(p.annotation is not inspect.Parameter.empty for p in annotations.parameters.values())
    assert annotations.return_annotation is not inspect.Signature.empty


def test_a_result_has_what_it_had() -> None:
    members = {name: value for name, value in vars(wsi_nuc.Result).items() if not name.startswith("_")}
    assert {name: taken(value) if callable(value) else None for name, value in sorted(members.items())} == RESULT
    assert all(inspect.getdoc(value) for value in members.values())


def test_a_configuration_has_the_keys_that_it_had() -> None:
    assert list(RunConfig.model_fields) == CONFIG.split()


def test_naming_the_package_costs_nothing() -> None:
    code = (
        "import sys, time, typing, importlib\nbefore, start = set(sys.modules), time.process_time()\n"
        "import wsi_nuc\nspent = time.process_time() - start\n"
        "import json; print(json.dumps([spent, sorted(set(sys.modules) - before)]))"
    )
    answers = [
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(spent for spent, _ in answers) < 0.1
    loaded = {name.partition(".")[0] for name in answers[0][1]}
    assert not {"numpy", "torch", "cv2", "pyarrow", "pandas", "pydantic", "zarr"} & loaded
