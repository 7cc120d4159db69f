"""CSV tables that a resumed training continues."""

from pathlib import Path

import pytest

from torch_linguist.runs.csv_table import Table, drop_rows_after, write_rows


def test_a_row_that_was_cut_off_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\r\n1,5.0\r\n2,4.0\r\n10,3.0\r\n2")
    assert drop_rows_after(path, 2) == 2
    assert path.read_bytes() == b"step,loss\r\n1,5.0\r\n2,4.0\r\n"
    assert drop_rows_after(path, 2, most=1) == 1
    assert drop_rows_after(path, 0) is None
    path.write_bytes(b"step,lo")
    drop_rows_after(path, 2)
    assert not path.exists()


def test_texts_that_a_spreadsheet_would_run_are_defused_and_numbers_stay(tmp_path: Path) -> None:
    cells = ["=1+1", "-3.5", "-", "@SUM(A1)", "+1e3", "-x", -2.5, 7]
    table = Table(tmp_path / "rows.csv", list("abcdefgh"))
    table.add(dict(zip("abcdefgh", cells, strict=True)))
    write_rows(tmp_path / "whole.csv", [list("abcdefgh"), cells])
    for name in ("rows.csv", "whole.csv"):
        assert (tmp_path / name).read_text().splitlines()[1] == "'=1+1,-3.5,-,'@SUM(A1),+1e3,'-x,-2.5,7"


def test_cells_of_the_last_row_can_be_set_by_a_table_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    Table(path, ["step", "train", "valid"]).add({"step": 1, "train": 2.5})
    table = Table(path, ["step", "train", "valid"], append=True)
    table.update_last({"step": 1, "valid": -0.1})
    table.add({"step": 2, "valid": 1 / 3})
    table.update_last({"train": 7.0})
    assert path.read_bytes() == b"step,train,valid\r\n1,2.5,-0.1\r\n2,7.0,0.3333333333333333\r\n"
    assert table.rows == [{"step": 2, "train": 7.0, "valid": 1 / 3}]
    with pytest.raises(KeyError, match="loss"):
        table.update_last({"loss": 1.0})
    for damage in (path.unlink, lambda: path.write_bytes(b"step,train,valid\r\n")):
        Table(path, ["step", "train", "valid"])
        damage()
        table.update_last({"step": 3, "valid": 2.0})
        assert path.read_bytes().endswith(b"3,,2.0\r\n")
