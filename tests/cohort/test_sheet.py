"""Lists as people and their spreadsheets write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cohort.lists import copy, settings, write_list
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.rows import make_rows
from wsi_nuc.cohort.sheet import read_sheet, typed
from wsi_nuc.errors import OK, USAGE, UsageError
from wsi_nuc.store.flat import to_csv


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_spreadsheet_says_the_same(encoding: str, separator: str, end: str, tmp_path: Path) -> None:
    rows = [["Slide", " patient", "Größe"], ["a b.svs", "P1", f'"1{separator}5"'], [], ["/x/c.svs", "", "2"]]
    text = end.join(separator.join(cells) for cells in rows)
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    first, second = read_sheet(str(tmp_path / "list.csv")).lines
    assert first.cells == {"slide": "a b.svs", "patient": "P1", "Größe": f"1{separator}5"}
    assert second.cells == {"slide": "/x/c.svs", "patient": "", "Größe": "2"}
    assert (first.number, second.number) == (2, 4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column slide"),
        (b"path,patient\na.svs,P\n", "no column slide.*path, patient"),
        (b"slide,Slide\na,b\n", "two columns 'slide'"),
        (b"slide,,x\na,b,c\n", "column 2 has no name"),
        (b"slide,patient\n", "no line below"),
        (b"slide,patient\n\n ,\n", "no line below"),
        (b"slide\nf\xfcr.svs\n", "not UTF-8"),
        (b'slide,patient\n"a.svs,P\n', "is not a valid CSV"),
        (b"MZ\0\0\0binary", "neither a slide nor a CSV"),
    ],
)
def test_what_is_not_a_list_is_refused_with_the_remedy(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_sheet(str(tmp_path / "list.csv"))
    assert caught.value.remedy
    assert "list.csv" in caught.value.subject


def test_a_path_with_nothing_there_is_refused(tmp_path: Path) -> None:
    for source in (tmp_path / "none.csv", tmp_path / "*.svs", tmp_path):
        with pytest.raises(UsageError, match="has no slides"):
            read_sheet(str(source))


def test_a_folder_is_searched_by_content_and_nothing_is_passed_over_in_silence(
    slides: list[Path], tmp_path: Path
) -> None:
    first = copy(slides[0], tmp_path / "x" / "one")
    second = copy(slides[1], tmp_path / "x" / "deep" / "two.svs")
    (tmp_path / "x" / "notes.svs").write_text("not a slide")
    (tmp_path / "x" / "empty.svs").touch()
    sheet = read_sheet(str(tmp_path / "x"))
    assert [line.cells["slide"] for line in sheet.lines] == [
        str(second),
        str(tmp_path / "x" / "empty.svs"),
        str(first),
    ]
    assert sheet.notes == ("1 files are not slides (notes.svs)",)
    by_pattern = read_sheet(str(tmp_path / "x" / "**" / "two*"))
    assert [line.cells["slide"] for line in by_pattern.lines] == [str(second)]
    assert [line.cells["slide"] for line in read_sheet(str(first)).lines] == [str(first)]


def _rows(tmp_path: Path, *lines: str) -> list[tuple[str, str, int]]:
    sheet = read_sheet(str(write_list(tmp_path / "list.csv", *lines)))
    rows = make_rows(sheet, settings(CohortFolder(tmp_path / "cohort")))
    return [(row.id, row.problem, row.exit_code) for row in rows]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.svs,x/y,,", "has a slash"),
        ("a.svs,x\\y,,", "has a slash"),
        ("a.svs,..,,", "begins with a dot"),
        ("a.svs,x\u202ey,,", "cannot name a file"),
        ("a.svs," + "x" * 201 + ",,", "cannot name a file"),
        ('a.svs,x,"0,25",', "not a number"),
        ("a.svs,x,nan,", "not the size of a pixel"),
        ("a.svs,x,-1,", "mpp = -1.0"),
        (",x,,", "names no slide"),
        ("a.svs,x,0.25,,P,more", "has 6 cells, the header has 4"),
    ],
)
def test_a_bad_line_costs_only_itself(line: str, said: str, tmp_path: Path) -> None:
    good, bad = _rows(tmp_path, "slide,id,mpp,roi", "b.svs,good,0.25,", line)
    assert good == ("good", "", OK)
    assert said in bad[1]
    assert bad[2] == USAGE


def test_one_id_or_one_slide_in_two_lines_keeps_the_first(tmp_path: Path) -> None:
    (tmp_path / "link.svs").symlink_to(tmp_path / "a.svs")
    lines = ["slide,id,patient", "a.svs,one,P1", "b.svs,ONE,P1", "sub/../a.svs,two,P2", "link.svs,three,P1"]
    rows = _rows(tmp_path, *lines)
    assert rows[0] == ("one", "", OK)
    assert "its id 'ONE' is also that of line 2" in rows[1][1]
    assert "the same file as line 2 (there of patient 'P1')" in rows[2][1]
    assert "the same file as line 2" in rows[3][1]
    assert [code for _, _, code in rows[1:]] == [USAGE] * 3


def test_slides_of_one_name_get_different_ids_whatever_their_order(tmp_path: Path) -> None:
    lines = ["x/s.svs", "y/s.svs", "t.svs"]
    ids = _ids(tmp_path, lines)
    assert ids == _ids(tmp_path, lines[::-1])
    assert len(set(ids.values())) == 3
    assert ids["t.svs"] == "t.svs"


def _ids(folder: Path, slides: list[str]) -> dict[str, str]:
    return {slide: name for slide, (name, _, _) in zip(slides, _rows(folder, "slide", *slides), strict=True)}


def test_names_that_are_not_text_are_listed_as_well(slides: list[Path], tmp_path: Path) -> None:
    folders = [os.fsdecode(name) for name in (b"one\xff", b"two")]
    for folder in folders:
        copy(slides[0], tmp_path / "x" / folder / os.fsdecode(b"s\xfe.svs"))
    sheet = read_sheet(str(tmp_path / "x"))
    rows = make_rows(sheet, settings(CohortFolder(tmp_path / "cohort")))
    assert [Path(row.slide).exists() for row in rows] == [True, True]
    assert len({row.id for row in rows}) == 2
    for row in rows:
        row.id.encode()


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(st.text(max_size=6), st.text("ab/.é=+-@ \t", max_size=4)), min_size=1, max_size=8))
def test_whatever_is_in_the_cells_every_usable_id_is_unique_and_names_a_file(
    cells: list[tuple[str, str]], tmp_path: Path
) -> None:
    data = to_csv(["slide", "id"], [[slide, name] for slide, name in cells if "\0" not in slide])
    (tmp_path / "list.csv").write_bytes(data)
    try:
        sheet = read_sheet(str(tmp_path / "list.csv"))
    except UsageError:
        return
    rows = make_rows(sheet, settings(CohortFolder(tmp_path / "cohort")))
    assert len(rows) == len(sheet.lines)
    named = [row.id for row in rows if row.id]
    assert len({name.casefold() for name in named}) == len(named)
    assert all(row.id or row.problem for row in rows)
    for name in named:
        assert CohortFolder(tmp_path).store(name).parent == tmp_path / "results"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_cell_becomes_a_formula(text: str) -> None:
    line = to_csv([text], [[text, -1.5]]).decode()
    assert line.count("'" + text[0]) == 2
    assert "-1.5" in line
    assert "'-1.5" not in line


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["61", "7", "", "NA"], int, [61, 7, None, None]),
        (["61", "7.5", "1e3", "nan"], float, [61.0, 7.5, 1000.0, None]),
        (["-1", "+2", "0"], int, [-1, 2, 0]),
        (["007", "012"], str, ["007", "012"]),
        (["61", "NA", "unknown"], str, ["61", "NA", "unknown"]),
        (["1e999"], str, ["1e999"]),
        (["123456789012345678"], int, [123456789012345678]),
        (["1234567890123456789"], str, ["1234567890123456789"]),
        (["0.5", "123456789012345678"], str, ["0.5", "123456789012345678"]),
        (["1_000"], str, ["1_000"]),
        (["\u0661"], str, ["\u0661"]),
        (["", "NA"], str, [None, "NA"]),
        ([], str, []),
    ],
)
def test_a_column_of_numbers_is_one_of_numbers(cells: list[str], kind: type, values: list[object]) -> None:
    assert typed(cells) == (kind, values)
    assert [type(value) for value in typed(cells)[1] if value is not None] == [kind] * sum(
        value is not None for value in values
    )
