"""Reading zip archives: whole ones, damaged ones, and ones that mean harm."""

import gzip
import io
import tarfile
import zipfile

import pytest

from selfkd_fairseq.data.archives import check_archive, open_member
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.raw_text import RawFile, Text, read_sentences
from tests.data.corpus import tree
from tests.data.wiki import DATE, content, lines, write_archive

MEMBER = "wikitext-2/wiki.valid.tokens"


def read(path, member=MEMBER):
    with open_member(path, member) as file:
        return file.read()


def text_of(path, member=MEMBER):
    return list(read_sentences(Text(RawFile(path, path.name), member)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_is_read_as_it_is(tmp_path, compression):
    path = write_archive(tmp_path / "a.zip", compression=compression)
    assert read(path) == content("valid")
    assert text_of(path) == lines("valid")


def test_member_larger_than_a_block(tmp_path):
    path = write_archive(tmp_path / "a.zip", counts={"valid": 80_000})
    assert len(content("valid", 80_000)) > 1 << 21
    assert text_of(path) == lines("valid", 80_000)


def test_missing_member(tmp_path):
    path = write_archive(tmp_path / "a.zip", name="wikitext-103")
    with pytest.raises(PreparationError) as error:
        read(path)
    assert str(error.value) == f"{path} has no {MEMBER} in it; is it the archive of something else?"


def test_no_archive_writes_anywhere(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write_archive(folder / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../outside", str(tmp_path / "absolute"), "inside", "wikitext-2/wiki.valid.tokens/../x"):
            archive.writestr(zipfile.ZipInfo(name, DATE), "evil")
        link = zipfile.ZipInfo("link", DATE)
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = tree(tmp_path)
    assert read(path) == content("valid")
    assert read(path, "link") == b"/etc/passwd"  # where it points to, not what is there
    assert tree(tmp_path) == before


def test_error_of_the_reader_is_not_hidden(tmp_path):
    path = write_archive(tmp_path / "a.zip")
    with pytest.raises(ZeroDivisionError), open_member(path, MEMBER):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.zip")


def small_archive(path, compression):
    with zipfile.ZipFile(path, "w", compression) as archive:
        info = zipfile.ZipInfo(MEMBER, DATE)
        info.compress_type = compression
        archive.writestr(info, "Grüße an alle , alle\n" * 6)
    return path.read_bytes()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
class TestDamage:
    def test_cut_anywhere(self, tmp_path, compression):
        path = tmp_path / "a.zip"
        whole = small_archive(path, compression)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(PreparationError, match="a.zip: damaged zip archive") as error:
                text_of(path)
            assert "\n" not in str(error.value)

    @pytest.mark.parametrize("change", [0x01, 0x55, 0xFF])
    def test_any_changed_byte_is_an_error_or_changes_nothing(self, tmp_path, compression, change):
        path = tmp_path / "a.zip"
        whole = small_archive(path, compression)
        refused = 0
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :])
            try:
                assert text_of(path) == ["Grüße an alle , alle"] * 6
            except PreparationError as error:
                refused += 1
                assert f"{path}" in str(error)
        assert refused > 100  # dates and the like are there twice, or matter to nobody

    def test_stream_that_ends_too_early(self, tmp_path, compression):
        path = tmp_path / "a.zip"
        whole = small_archive(path, compression)
        start = whole.index(MEMBER.encode()) + len(MEMBER)
        path.write_bytes(whole[: start + 5] + whole[start + 15 :])  # the directory at the end is whole
        with pytest.raises(PreparationError, match="a.zip: damaged zip archive"):
            text_of(path)


@pytest.mark.parametrize("bytes_", [b"", b"PK", b"a text\n" * 100])
def test_no_archive_at_all(tmp_path, bytes_):
    (tmp_path / "a.zip").write_bytes(bytes_)
    with pytest.raises(PreparationError, match=r"a.zip: damaged zip archive \(File is not a zip file\)"):
        read(tmp_path / "a.zip")


TEXT = "Grüße an alle , alle\n".encode() * 6


def tar(path, members=((MEMBER, TEXT), ("other/file", b"x" * 2000)), links=()):
    """A gzipped tar file with files (name, content) and links (name, target, type)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, target, kind in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    return path


class TestTar:
    @pytest.mark.parametrize("name", ["a.tgz", "a.tar.gz"])
    @pytest.mark.parametrize("member", ["other/file", MEMBER])
    def test_a_member_is_read_as_it_is(self, tmp_path, name, member):
        path = tar(tmp_path / name)
        assert read(path, member) == dict([(MEMBER, TEXT), ("other/file", b"x" * 2000)])[member]
        check_archive(path)

    def test_names_that_begin_with_a_dot(self, tmp_path):
        assert read(tar(tmp_path / "a.tgz", [("./" + MEMBER, TEXT)])) == TEXT

    def test_missing_member_and_a_link_in_its_place(self, tmp_path):
        for links in ((), [(MEMBER, "/etc/passwd", tarfile.SYMTYPE)], [(MEMBER, "other/file", tarfile.LNKTYPE)]):
            path = tar(tmp_path / "a.tgz", [("other/file", b"x")], links)
            with pytest.raises(PreparationError, match=f"has no {MEMBER} in it"):
                read(path)

    def test_cut_anywhere(self, tmp_path):
        path = tar(tmp_path / "a.tgz")
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(PreparationError, match="a.tgz: damaged tar archive") as error:
                check_archive(path)
            assert "\n" not in str(error.value)

    @pytest.mark.parametrize("change", [0x01, 0xFF])
    def test_any_changed_byte_is_an_error_or_changes_nothing(self, tmp_path, change):
        path = tar(tmp_path / "a.tgz")
        whole = path.read_bytes()
        refused = 0
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :])
            try:
                check_archive(path)
                assert read(path) == TEXT
            except PreparationError as error:
                refused += 1
                assert f"{path}" in str(error)
        assert refused > len(whole) - 12  # the header has a date and the like

    def test_no_archive_at_all(self, tmp_path):
        for written in (b"", b"a text", gzip.compress(b"a text\n" * 200)):
            (tmp_path / "a.tgz").write_bytes(written)
            with pytest.raises(PreparationError, match="a.tgz: damaged tar archive"):
                check_archive(tmp_path / "a.tgz")


@pytest.mark.parametrize("name", ["../outside", "/etc/absolute", "a/../../b", "..", "a\\..\\..\\b"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    made = tar(tmp_path / "a.tgz", [(MEMBER, TEXT), (name, b"evil")])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name, DATE), "evil")
    before = tree(tmp_path)
    for path in (made, tmp_path / "a.zip"):
        with pytest.raises(PreparationError, match=r"holds a file that would be written outside of its folder: "):
            check_archive(path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize(("target", "refused"), [("/etc", True), ("../..", True), ("other", False)])
def test_links_that_lead_out_are_refused(tmp_path, kind, target, refused):
    path = tar(tmp_path / "a.tgz", links=[("link", target, kind)])
    if refused:
        with pytest.raises(PreparationError, match=f"written outside of its folder: link -> {target}"):
            check_archive(path)
    else:
        check_archive(path)


def test_a_member_that_claims_to_be_endless(tmp_path):
    """A header of a few bytes, which would keep tarfile skipping for years."""
    path = tmp_path / "a.tgz"
    entry = tarfile.TarInfo("a")
    entry.size = 1 << 70
    path.write_bytes(gzip.compress(entry.tobuf(tarfile.PAX_FORMAT)))
    for reading in (lambda: check_archive(path), lambda: read(path, "b")):
        with pytest.raises(PreparationError, match="damaged tar archive"):
            reading()
