"""Mutations that keep part of a file's structure: of bytes, lines, words and pickle opcodes."""

import re
from collections.abc import Sequence
from random import Random

import fuzz_pickles

MAX_BYTES = 200_000
_PIECES = re.compile(rb"[A-Za-z_]+|[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|\s+|.", re.DOTALL)
_NUMBERS = (
    b"0", b"-1", b"1", b"2", b"3", b"7", b"31", b"64", b"255", b"2000", b"2001", b"65536", b"100000", b"99999999",
    b"-2147483649", b"18446744073709551616", b"1e308", b"1e999", b"-1e999", b"nan", b".nan", b".inf", b"-.inf",
    b"0.5", b"1e-320", b"0x7f", b"1_000", b"9" * 400, b"0x" + b"f" * 4000, b"1:30:00", b"0b1", b"017", b"1" * 5000,
)  # fmt: skip
_WORDS = (
    b"null", b"~", b"true", b"yes", b"''", b"[]", b"{}", b"[[1,2],[3,4]]", b"{a: 1}", b"nc", b"anchors", b"None",
    b"\"\\ud800\"", b"~nobody/x", b"../../x", b"a" * 300, b"!!int ''", b"!!float ''", b"!!bool x", b"!!timestamp x",
    b"!!set {a}", b"!!binary x", b"!!python/name:os.system", b"!!omap [a: 1]", b"!!map a", b"!!str", b"!!null x",
    b"&a", b"*a", b"<<: {a: 1}", b"? a", b"|", b">", b"---", b"2001-01-01", b"2001-99-99", b"%YAML 9.9", b"=",
    b"\x00", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b"[" * 500, b"{" * 500, b"- " * 500, b"http://x/a.zip", b"Conv",
    b"C3", b"Concat", b"Upsample", b"Detect", b"SPPCSPC", b"Focus", b"nn.Upsample", b"[net]", b"[yolo]", b"[route]",
    b"[shortcut]", b"[convolutional]", b"[maxpool]", b"[upsample]", b"groups=2", b"layers=-1,-2", b"mask=0", b";",
)  # fmt: skip


def mutate(name: str, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """A mutated copy of an input of the target `name`."""
    if name == "pickle" and (data[:1] in (b"Z", b"L") or random.random() < 0.1):
        return fuzz_pickles.mutated(data, random)[:MAX_BYTES]
    binary = name in ("pickle", "darknet-weights", "archives", "images")
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = _bytes(data, others, random) if binary or random.random() < 0.15 else _text(data, others, random)
    return data[:MAX_BYTES]


def _bytes(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    kind, at = random.randrange(7), random.randrange(len(data) + 1)
    # The fields that decide how a binary file is read are near its start.
    at = at if random.random() < 0.5 else min(at, random.randrange(64))
    end = min(at + random.choice((1, 2, 4, 8, 64)), len(data))
    middle, tail = data[at:end], data[end:]
    if kind == 0:
        middle, tail = b"", b""
    elif kind == 1:
        middle = b""
    elif kind == 2:
        middle = random.randbytes(len(middle))
    elif kind == 3:
        middle = random.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * len(middle)
    elif kind == 4:
        middle *= random.choice((2, 2, 9))
    elif kind == 5 and others:
        other = random.choice(others)
        middle, tail = b"", other[random.randrange(len(other) + 1) :]
    elif middle:
        middle = bytes((middle[0] ^ 1 << random.randrange(8),)) + middle[1:]
    else:
        middle = random.randbytes(random.randrange(9))
    return data[:at] + middle + tail


def _text(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    if random.random() < 0.25:
        return _lines(data, others, random)
    pieces = _PIECES.findall(data)
    if not pieces:
        return random.choice(_WORDS)
    at = random.randrange(len(pieces))
    kind = random.randrange(6)
    if kind <= 1:
        numbers = [i for i, piece in enumerate(pieces) if piece[-1:].isdigit()]
        at = random.choice(numbers) if numbers else at
        pieces[at] = random.choice(_NUMBERS)
    elif kind == 2:
        pieces[at] = random.choice(_WORDS)
    elif kind == 3:
        pieces.insert(at, random.choice(_WORDS + _NUMBERS))
    elif kind == 4:
        pieces[at] = b""
    else:
        other = random.randrange(len(pieces))
        pieces[at] = pieces[other]
    return b"".join(pieces)


def _lines(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.randrange(5)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 2:
        lines.insert(at, lines[other] * random.choice((1, 1, 2, 300)))
    elif kind == 3 and others:
        lines.insert(at, random.choice(random.choice(others).splitlines(keepends=True) or [b""]))
    else:
        lines[at] = b" " * random.randrange(5) + lines[at].lstrip()
    return b"".join(lines)
