import os
import sys

import pytest

from ipucnn.core.errors import DataError
from ipucnn.data.image_files import folders_in, list_images, printable


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def below(folder):
    return [os.path.relpath(path, str(folder)) for path in list_images(str(folder))]


def test_order_nesting_suffixes_and_hidden(tmp_path):
    touch(tmp_path, "b.jpg", "a/z.PNG", "a/b/c.JpEg", "Z.webp", "a-1.gif", "e.tif", "f.ppm",
          "g.bmp", "notes.txt", "jpg", ".hidden.jpg", ".cache/x.jpg", "a/._b.jpg", "x.jpg.txt")
    assert below(tmp_path) == ["Z.webp", "a-1.gif", "a/b/c.JpEg", "a/z.PNG", "b.jpg", "e.tif",
                               "f.ppm", "g.bmp"]


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "real/x.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    assert below(tmp_path) == ["dangling.jpg", "linked/x.jpg", "real/x.jpg"]


def test_folders_in(tmp_path):
    touch(tmp_path, "b/1.jpg", "a/1.jpg", ".git/x", "file.jpg")
    assert folders_in(str(tmp_path)) == ["a", "b"]


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"cannot list folder '.*none': no such"):
        folders_in(str(tmp_path / "none"))


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_name_that_is_not_text(tmp_path):
    with open(os.path.join(os.fsencode(str(tmp_path)), b"caf\xe9.jpg"), "wb"):
        pass
    (path,) = list_images(str(tmp_path))
    assert printable(path).encode("utf-8").endswith(rb"caf\xe9.jpg")
    assert printable("dir/é漢.jpg") == "dir/é漢.jpg"
