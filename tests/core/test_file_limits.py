"""Files from outside are read within limits, and folders are as private as they must be."""

from __future__ import annotations

import os
import stat

import pytest

from ipucnn.core import files
from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import UsageError
from ipucnn.core.files import new_file, private_folder, read_limited, trusted_folder

FLAG = "--model-cache-path"


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.delenv("IPUCNN_CACHE", raising=False)
    assert files.cache_dir().name == "ipucnn"
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "c"))
    assert files.cache_dir() == tmp_path / "c"


@pytest.mark.parametrize("found", ["~/.cache/ipucnn", RuntimeError("no home folder")])
def test_the_cache_of_a_user_without_a_home_folder(monkeypatch, found):
    import platformdirs

    def user_cache_dir(name):
        if isinstance(found, str):  # older versions
            return found
        raise found

    monkeypatch.delenv("IPUCNN_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", user_cache_dir)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # there is no home folder
    assert str(files.cache_dir()) == "/.cache/ipucnn"


def test_only_regular_files_of_a_limited_size_are_read(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_limited(tmp_path / "x", 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for path, limit, reason in ((tmp_path / "x", 4, "it is larger than 4 bytes"),
                                (tmp_path / "pipe", 9, "it is a"),
                                ("/dev/zero", 9, "it is a"),
                                (tmp_path, 9, "directory"), (tmp_path / "no", 9, "No such file")):
        with pytest.raises(OSError, match=reason):
            read_limited(path, limit)


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a":' * 100_000, "[" * 200 + "]" * 200, "9" * 5000,
    "-" + "9" * 41, "1e400", "-1e400", "NaN",
    "Infinity", "[1, -Infinity]", "", "{"])
def test_json_that_python_alone_would_read_wrongly(text):
    with pytest.raises(ValueError, match=r"deep|too large|finite|Expecting") as caught:
        parsed_json(text)
    assert len(str(caught.value)) < 200


def test_json_keeps_whole_numbers_exact():
    assert parsed_json(f"[{2 ** 53 + 1}, {10 ** 30}, 1e3]") == [2 ** 53 + 1, 10 ** 30, 1e3]


def test_a_private_folder_is_the_users_alone(tmp_path):
    (tmp_path / "open").mkdir(0o777)
    for name in ("new/deep", "open"):
        private_folder(tmp_path / name)
        assert mode(tmp_path / name) == 0o700


def test_a_new_file_takes_the_place_of_a_link(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "x").symlink_to("precious")
    with new_file(tmp_path / "x") as file:
        file.write(b"new")
    assert ((tmp_path / "precious").read_text(), (tmp_path / "x").read_text()) == ("kept", "new")
    assert mode(tmp_path / "x") == 0o600


class TestTrustedFolder:
    def test_a_new_one_is_private(self, tmp_path):
        assert trusted_folder(str(tmp_path / "a/b"), FLAG) == str(tmp_path / "a/b")
        assert mode(tmp_path / "a/b") == 0o700
        (tmp_path / "a/b/kernel.py").write_text("pass")
        assert trusted_folder(str(tmp_path / "a/b"), FLAG)

    @pytest.mark.parametrize("what", ["cache", "cache/kernel.py"])
    def test_one_that_others_can_write_to_is_refused(self, tmp_path, what):
        (tmp_path / "cache").mkdir(0o755)
        (tmp_path / "cache/kernel.py").write_text("pass")
        os.chmod(tmp_path / what, 0o777)
        with pytest.raises(UsageError, match="can be written by other users") as caught:
            trusted_folder(str(tmp_path / "cache"), FLAG)
        assert FLAG in caught.value.message
        assert "chmod" in caught.value.hint

    def test_one_with_files_of_another_user_is_refused(self, tmp_path, monkeypatch):
        (tmp_path / "cache").mkdir(0o755)
        (tmp_path / "cache/kernel.py").write_text("pass")
        theirs = os.stat(tmp_path / "cache/kernel.py").st_ino
        monkeypatch.setattr(files, "is_own", lambda status: status.st_ino != theirs)
        with pytest.raises(UsageError, match=r"kernel.py' belongs to another user"):
            trusted_folder(str(tmp_path / "cache"), FLAG)

    def test_a_file_in_its_place_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="cannot make the folder"):
            trusted_folder(str(tmp_path / "file"), FLAG)
