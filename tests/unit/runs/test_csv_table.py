"""CSV tables that a resumed training continues."""

from pathlib import Path

from torch_linguist.runs.csv_table import Table, drop_rows_after, write_rows


def test_a_row_that_was_cut_off_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\r\n1,5.0\r\n2,4.0\r\n10,3.0\r\n2")
    drop_rows_after(path, 2)
    assert path.read_bytes() == b"step,loss\r\n1,5.0\r\n2,4.0\r\n"
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
