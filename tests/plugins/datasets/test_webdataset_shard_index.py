"""Archives are read as the webdataset library reads them, and faults are reported."""

import io
import os
import random
import tarfile
import threading
import time

import pytest
from shard_folders import sample, write_shard
from webdataset.tariterators import group_by_keys, tar_file_expander

from ipucnn.plugins.datasets._webdataset.kept import Kept
from ipucnn.plugins.datasets._webdataset.shard_index import File, Unreadable, samples

LONG = "folder/" * 20 + "x.jpg"


def read(path):
    file = File(str(path))
    return [(found.key, {name: file.read(member) for name, member in found.members.items()})
            for found in samples(file)]


def read_by_library(path):
    with path.open("rb") as stream:
        files = tar_file_expander([{"url": str(path), "stream": stream}])
        return [(found["__key__"], {name: value for name, value in found.items()
                                    if name not in ("__key__", "__url__")})
                for found in group_by_keys(files)]


def tar(path, members, form=tarfile.USTAR_FORMAT, **more):
    with tarfile.open(str(path), "w", format=form, **more) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(content))
    return path


def test_as_the_library_writes_them(tmp_path):
    path = tmp_path / "train-000000.tar"
    write_shard(path, [sample(number) for number in range(20)])
    found = read(path)
    assert found == read_by_library(path)
    assert [key for key, _ in found] == [str(number) for number in range(20)]
    assert found[7][1]["cls"] == b"1"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("members", [
    [],
    [("1.jpg", b"x" * 513), ("1.cls", b"3"), ("2.jpg", b""), ("2.cls", b"4" * 512)],
    [("a/1.jpg", b"x"), ("b/1.jpg", b"y"), ("b/1.CLS", b"0")],
    [("./1.jpg", b"x"), ("./1.cls", b"0"), ("a.b/c.left.jpg", b"y"), ("a.b/c.cls", b"y")],
    [("__meta__", b"x"), ("__x__/1.jpg", b"x"), ("__1.jpg", b"x"), ("noextension", b"y")],
    [("a/", b""), ("a/.hidden", b"x"), (".hidden.jpg", b"x"), ("a/1.jpg", b"x")],
    [("1.jpg", b"x"), ("noextension", b"y"), ("1.cls", b"0"), ("2.jpg", b""), ("1.png", b"")],
    [(LONG, b"x"), (LONG.replace("jpg", "cls"), b"0"), ("1.jpg", b"y")],
    [("für.jpg", b"x"), ("日本.jpg", b"y"), ("日本.cls", b"2")],
], ids=range(9))
def test_names_mean_what_they_mean_to_the_library(tmp_path, members, form):
    path = tar(tmp_path / "x.tar", members, form)
    assert read(path) == read_by_library(path)


def test_random_archives(tmp_path):
    drawn = random.Random(5)
    for number in range(60):
        names = ["".join(drawn.choice("ab./_") for _ in range(drawn.randint(1, 9)))
                 for _ in range(drawn.randint(1, 12))]
        members = [(name, b"" if name.endswith("/") else os.urandom(drawn.choice([0, 5, 600])))
                   for name in names]
        path = tar(tmp_path / f"{number}.tar", members)
        try:
            expected = read_by_library(path)
        except ValueError:  # a name twice
            with pytest.raises(Unreadable, match="twice"):
                read(path)
        else:
            assert read(path) == expected, names


def test_links_are_no_samples(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(str(path), "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("2.jpg")
            info.type, info.linkname = kind, "1.jpg"
            archive.addfile(info)
        info = tarfile.TarInfo("3.jpg")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"data"))
    assert read(path) == read_by_library(path) == [("3", {"jpg": b"data"})]


def test_an_archive_without_end_is_whole(tmp_path):
    path = tar(tmp_path / "x.tar", [("1.jpg", b"x" * 512)])
    path.write_bytes(path.read_bytes()[:1024])
    assert read(path) == read_by_library(path) == [("1", {"jpg": b"x" * 512})]


class TestFaults:
    def check(self, path, reason):
        with pytest.raises(Unreadable, match=reason):
            read(path)

    @pytest.mark.parametrize("size", [0, 100, 511, 600, 5000, 5900])
    def test_truncated(self, tmp_path, size):
        path = tar(tmp_path / "x.tar", [("1.jpg", b"x" * 5000), ("2.jpg", b"x" * 5000)])
        path.write_bytes(path.read_bytes()[:size])
        self.check(path, f"it is truncated, at {size:,} bytes")

    def test_cut_off_anywhere(self, tmp_path):
        path = tmp_path / "x.tar"
        write_shard(path, [sample(number) for number in range(3)])
        content, whole = path.read_bytes(), read(path)
        with tarfile.open(str(path)) as archive:
            boundaries = {info.offset for info in archive} - {0}
        end = len(content.rstrip(b"\0")) // 512 * 512 + 512
        for size in (*range(0, end, 512), *range(1, end, 701)):
            path.write_bytes(content[:size])
            if size in boundaries:  # nobody can see that there was another file
                assert [key for key, _ in read(path)] == [key for key, _ in whole][:len(read(path))]
            else:
                self.check(path, f"it is truncated, at {size:,} bytes")

    @pytest.mark.parametrize("byte", [3, 130, 150, 700, 1030])
    def test_a_damaged_header_is_no_end(self, tmp_path, byte):
        path = tar(tmp_path / "x.tar", [(f"{i}.jpg", b"") for i in range(4)])
        content = bytearray(path.read_bytes())
        content[byte] ^= 0x55
        path.write_bytes(content)
        self.check(path, "damaged")

    def test_compressed(self, tmp_path):
        with tarfile.open(str(tmp_path / "x.tar"), "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("1.jpg"))
        self.check(tmp_path / "x.tar", "no uncompressed tar archive|truncated")

    def test_no_file(self, tmp_path):
        self.check(tmp_path / "x.tar", "no such file")
        (tmp_path / "y.tar").mkdir()
        self.check(tmp_path / "y.tar", "it is not a file")
        os.mkfifo(str(tmp_path / "z.tar"))
        self.check(tmp_path / "z.tar", "it is not a file")

    def test_a_file_that_becomes_shorter(self, tmp_path):
        path = tar(tmp_path / "x.tar", [("1.jpg", b"x" * 9000)])
        file = File(str(path))
        (found,) = samples(file)
        os.truncate(str(path), 4000)
        with pytest.raises(Unreadable, match="truncated"):
            file.read(found.members["jpg"])


class TestKept:
    def test_the_last_keys_requested(self):
        kept, made = Kept(2), []
        for key in (1, 2, 1, 3, 1, 2):
            assert kept(key, lambda key=key: made.append(key) or 10 * key) == 10 * key
        assert made == [1, 2, 3, 2]

    def test_threads_share_what_one_makes(self):
        kept, made = Kept(4), []

        def make():
            made.append(1)
            time.sleep(0.05)
            return "value"

        threads = [threading.Thread(target=lambda: kept("key", make)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [1]

    def test_a_failure_is_not_kept(self):
        kept = Kept(2)
        with pytest.raises(ZeroDivisionError):
            kept(1, lambda: 1 // 0)
        assert kept(1, lambda: 5) == 5


def test_open_files_do_not_add_up(tmp_path):
    path = tar(tmp_path / "x.tar", [("1.jpg", b"x")])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        File(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def header(name, size=b"00000000000\0", kind=b"0", **fields):
    """Return a header block with any bytes as its size, and a right checksum."""
    block = bytearray(512)
    block[:len(name)] = name
    block[100:108] = fields.get("mode", b"0000644\0")
    block[124:136] = size.ljust(12, b"\0")
    block[156:157] = kind
    block[257:265] = fields.get("magic", b"ustar\00000")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(text):
    record = b"%d %s\n" % (len(text) + 4, text)
    return header(b"x", b"%011o\0" % len(record), b"x") + record.ljust(512, b"\0")


GOOD = header(b"0.jpg", b"00000000004\0") + b"abcd".ljust(512, b"\0")
NEGATIVE = b"\xff" * 11 + b"\x01"


@pytest.mark.parametrize(("damage", "message"), [
    (header(b"1.jpg", b"-0000001000"), "header at byte 1,024 has a negative size (-512)"),
    (header(b"1.jpg", NEGATIVE), "header at byte 1,024 has a negative size (-255)"),
    (header(b"d/", b"-0000001000", b"5"), "header at byte 1,024 has a negative size"),
    (header(b"n", b"-0000001000", b"L"), "header at byte 1,024 has a negative size"),
    (header(b"n", NEGATIVE, b"x"), "header at byte 1,024 has a negative size"),
    (header(b"n", b"-0000001000", b"7"), "header at byte 1,024 has a negative size"),
    (pax(b"size=-512") + header(b"1.jpg"), "has a negative size (-512)"),
    (header(b"n", b"00001000000", b"L") + bytes(1 << 18), "continued in 262,144 bytes"),
    (header(b"n", b"00001000000", b"x") + bytes(1 << 18), "continued in 262,144 bytes"),
    (header(b"1.jpg", b"\x80" + b"\x7f" * 11), "truncated"),
    (header(b"1.jpg", b"77777777777\0"), "truncated"),
    (header(b"l", b"00000000001\0", b"L").ljust(1024, b"a") * 2000, "damaged"),
    (header(b"1.jpg", b"+0000000004"), ""),
    (header(b"s", b"00000000000", b"S"), ""),
    (header(b"1.jpg", b"0_00000_04\0"), ""),
    (header(b"1.jpg", mode=b"-777777\0"), ""),
])
def test_every_number_in_a_header_is_checked(tmp_path, damage, message):
    path = tmp_path / "train-000000.tar"
    path.write_bytes(GOOD + damage + GOOD + bytes(1024))
    begin = time.monotonic()
    caught = []
    try:
        read(path)
    except Unreadable as error:
        caught = [str(error)]
    assert caught or not message
    assert all(message in text and len(text) < 300 for text in caught)
    assert time.monotonic() - begin < 5


def test_a_link_is_not_followed_where_none_may_be(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + bytes(1024))
    (tmp_path / "b.tar").symlink_to("a.tar")
    assert File(str(tmp_path / "b.tar")).size
    with pytest.raises(Unreadable):
        File(str(tmp_path / "b.tar"), follow=False)
