import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.dataset.tar import BrokenTar, Member, members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(names: list[str], kind: int = tarfile.PAX_FORMAT, size: int = 700) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for i, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = size + i, 1.5
            tar.addfile(info, io.BytesIO(bytes([i]) * info.size))
    return out.getvalue()


def read(content: bytes) -> tuple[list[Member], str]:
    found = []
    try:
        for member in members(io.BytesIO(content)):
            found.append(member)
    except BrokenTar as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("kind", FORMATS)
def test_members_equal_those_of_tarfile(kind: str) -> None:
    names = ["a.jpg", "f/" + "x" * 90 + "/" + "y" * 80 + ".txt", "é.png"]
    if kind != "ustar":  # which cannot store it
        names.append("z" * 300 + ".jpg")
    content = archive(names, FORMATS[kind])
    found, error = read(content)
    assert not error
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        expected = [Member(m.name.encode(), m.offset_data, m.size) for m in tar]
    assert found == expected
    for i, member in enumerate(found):
        assert content[member.start : member.start + member.length] == bytes([i]) * (700 + i)


def test_links_folders_and_devices_are_ignored() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.DIRTYPE),
            ("c", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("plain"))
    assert read(out.getvalue()) == ([Member(b"plain", 5 * 512, 0)], "")


WHOLE = archive(["a", "b", "c"], tarfile.USTAR_FORMAT)  # 512 + 1024 bytes each


@pytest.mark.parametrize(
    ("content", "kept", "what"),
    [
        (b"", 0, "too short"),
        (b"\x1f\x8b" + bytes(1000), 0, "not a tar archive, or a compressed one"),
        (WHOLE[:1000], 0, "cut off: the file at byte 0 goes beyond the end"),
        (WHOLE[:2100], 1, "cut off: the file at byte 1536 goes beyond the end"),
        (WHOLE[: 3 * 1536], 3, "cut off: it has no end mark"),
        (WHOLE[:1636] + b"?" + WHOLE[1637:], 1, "damaged at byte 1536"),
    ],
)
def test_damage_is_reported_and_complete_members_are_kept(content: bytes, kept: int, what: str) -> None:
    found, error = read(content)
    assert len(found) == kept
    assert what in error


def test_negative_size() -> None:
    head = bytearray(WHOLE[:512])
    head[124:136] = b"\xff" + (-1024).to_bytes(11, "big", signed=True)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    assert "goes beyond" in read(bytes(head) + WHOLE[512:])[1]


@pytest.mark.parametrize("record", [b"99 path=a\n", b"3 path=a\n", b"30 size=99999999999999999999999\n"])
def test_invalid_attributes(record: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(record)
        tar.addfile(info, io.BytesIO(record))
        tar.addfile(tarfile.TarInfo("plain"))
    assert read(out.getvalue())[1]


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)), max_size=4))
def test_members_of_a_damaged_archive_lie_within_it(changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(WHOLE)
    for at, patch in changes:
        content[at : at + len(patch)] = patch
    found, _ = read(bytes(content))
    assert all(0 <= m.start <= m.start + m.length <= len(content) for m in found)


@given(st.binary(max_size=2000))
def test_any_bytes(content: bytes) -> None:
    read(content)
