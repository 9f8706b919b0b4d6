import os
import sys
import time

import pytest
from PIL import Image

from ipucnn.core.errors import DataError
from ipucnn.core.files import name_text
from ipucnn.data.image_files import FileImages, folders_in, list_images
from ipucnn.data.left_out import LeftOut


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


def left_of(folder):
    """The notes about a folder, without its name."""
    left = LeftOut(str(folder))
    list_images(str(folder), left)
    return [note.split(": ", 1)[1] for note in left.notes()]


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "real/x.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert below(tmp_path) == ["linked/x.jpg", "real/x.jpg"]
    assert left_of(tmp_path) == [
        "3 broken links: dangling.jpg, one, two",
        "2 links to folders that they are in: linked/loop, real/loop"]


def test_links_to_a_folder_above_are_not_followed(tmp_path):
    touch(tmp_path, "photos/ant/1.jpg", "photos/bee/1.jpg", "elsewhere/1.jpg")
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "elsewhere")
    for folder in ("photos/ant", "elsewhere"):
        (tmp_path / folder / "all").symlink_to(tmp_path / "photos")
    for folder in ("photos/ant", "photos/cat"):  # images of other classes are not of this one
        assert below(tmp_path / folder) == ["1.jpg"]
        assert left_of(tmp_path / folder) == ["1 link to a folder that it is in: all"]


@pytest.fixture
def nested(tmp_path):
    """Return a folder with more levels than Python's usual limit of calls."""
    before, places = sys.getrecursionlimit(), [str(tmp_path)]
    sys.setrecursionlimit(1000)  # a library may have raised it, and paths are limited, too
    try:
        for _ in range(1100):
            os.mkdir(places[-1] + "/d")
            places.append(places[-1] + "/d")
        yield tmp_path
    finally:  # `shutil.rmtree` of pytest is recursive
        for place in places[:0:-1]:
            os.rmdir(place)
        sys.setrecursionlimit(before)


def test_folders_are_nested_more_deeply_than_python_calls(nested):
    (nested / "a.jpg").write_bytes(b"")
    assert list_images(str(nested)) == [str(nested / "a.jpg")]


def test_what_is_left_out_is_counted_and_named(tmp_path):
    touch(tmp_path, "a.jpg", "__MACOSX/a/._a.jpg", "notes.txt", "b.CR2", ".cache/x.jpg",
          ".DS_Store", *(f"{number}.psd" for number in range(4)))
    assert below(tmp_path) == ["a.jpg"]
    assert left_of(tmp_path) == [
        "5 images of formats that no installed decoder reads: 0.psd, 1.psd, 2.psd and 2 more; "
        "pip install 'ipucnn[formats]' adds decoders of HEIC and AVIF",
        "1 file that is no image: notes.txt", "1 folder of the operating system: __MACOSX",
        "1 hidden image or folder: .cache"]


def test_content_decides_where_there_is_no_suffix(tmp_path):
    picture = Image.new("RGB", (9, 7), "red")
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
        picture.save(tmp_path / f"{kind} of 12.5.2026", kind)
    touch(tmp_path, "README", "BMP", "v1.2.3")
    (tmp_path / "BMP").write_text("BMP is a format")
    assert sorted(name.split()[0] for name in below(tmp_path)) == [
        "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]
    assert left_of(tmp_path) == ["3 files that are no images: BMP, README, v1.2.3"]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.jpg", "closed/y.jpg")
    (tmp_path / "closed").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # folders above may be closed to the other user
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        assert below(".") == ["a/x.jpg"]
        assert left_of(".") == ["1 folder that cannot be read: closed"]
        with pytest.raises(DataError, match="cannot list folder 'closed': permission denied"):
            list_images("closed")
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o755)


def test_fingerprint(tmp_path):
    def of(folder, labels=(0, 0, 1)):
        return FileImages([f"{folder}/{name}" for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg")],
                          labels, ("a", "b")).fingerprint()

    assert of("here") == of(f"{tmp_path}/there") == of("./here") == of("here//now/.")
    assert of("here") != of("here", (0, 1, 1))
    assert of("here") != FileImages(["here/a/1.jpg", "here/a/2.jpg", "here/b/2.jpg"], (0, 0, 1),
                                    ("a", "b")).fingerprint()


def test_version(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "photos/a/1.bmp", "photos/b/2.bmp")

    def of(folder):
        return FileImages([f"{folder}/a/1.bmp", f"{folder}/b/2.bmp"]).version()

    before = of("photos")
    assert before == of("./photos") == of(f"{tmp_path}/photos")
    one, two, spare = (tmp_path / "photos" / name for name in ("a/1.bmp", "b/2.bmp", "spare"))
    for path in (one, two):
        os.utime(str(path), (10**9, 10**9))
    equal = of("photos")
    assert equal != before
    time.sleep(0.05)  # the clock of a file system is coarse
    for source, target in ((one, spare), (two, one), (spare, two)):
        source.rename(target)
    assert of("photos") != equal  # though names, sizes and modification times are the same


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
    assert name_text(path).encode("utf-8").endswith(rb"caf\xe9.jpg")
    assert name_text("dir/é漢.jpg") == "dir/é漢.jpg"
