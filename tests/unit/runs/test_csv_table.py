"""CSV tables that a resumed training continues."""

from pathlib import Path

from torch_linguist.runs.csv_table import drop_rows_after


def test_a_row_that_was_cut_off_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\r\n1,5.0\r\n2,4.0\r\n10,3.0\r\n2")
    drop_rows_after(path, 2)
    assert path.read_bytes() == b"step,loss\r\n1,5.0\r\n2,4.0\r\n"
    path.write_bytes(b"step,lo")
    drop_rows_after(path, 2)
    assert not path.exists()
