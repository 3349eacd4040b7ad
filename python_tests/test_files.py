"""Files that are old or new, and packages that are there or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdprop_ext import _files
from mdprop_ext._optional import require


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(OSError, match="taken") as failure:
        _files.write_bytes(taken, b"new")
    assert failure.value.filename == str(taken)
    assert list(tmp_path.iterdir()) == [taken], "a temporary file is left"
    _files.write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_where_output_can_go(tmp_path: Path) -> None:
    _files.check_output_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match=r"out: expected a folder, but '.*/a' is a file"):
        _files.check_output_folder(tmp_path / "a" / "b")


def test_a_folder_that_takes_no_files_is_no_place_for_output() -> None:
    kernel = Path("/proc")  # not even of the user who may write everywhere
    if not kernel.is_dir():
        pytest.skip("needs the process file system of Linux")
    with pytest.raises(ValueError, match=r"out: expected a folder to write in, but '/proc' takes no files \(.+\)"):
        _files.check_output_folder(kernel / "run")


def test_a_broken_package_shows_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import surely_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'surely_not_there'"):
        require("half_installed", extra="cli")
    with pytest.raises(ImportError, match=r"needs the package 'surely_not_there'.*pip install 'mdprop_ext\[cli\]'"):
        require("surely_not_there.deeper", extra="cli")
