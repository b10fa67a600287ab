from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import parse_mapping, read_mapping, write_mapping

# YAML cannot contain control characters and lone surrogates, and a byte order mark is not part of the text.
WORDS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), WORDS)


@given(st.dictionaries(WORDS, st.one_of(PLAIN, st.lists(PLAIN, max_size=4)), max_size=6))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, mapping: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    write_mapping(path, mapping)
    assert read_mapping(path) == mapping


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", "malformed YAML"),
        ("a: 1\na: 2\n", "repeats"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("- 1\n- 2\n", "a mapping"),
        ("?", "must be a word"),
        ("a: !!python/object/apply:os.system ['true']\n", "malformed YAML"),
        ("a: !!int ''\n", "not a tag:yaml.org,2002:int"),
        ("a: !!bool x\n", "not a tag:yaml.org,2002:bool"),
        ("a: !!map x\n", "a mapping is expected"),
        ("a: 0x1" + "0" * 16, "too large"),
        ("a: 1" + ":1" * 200_000, "too long"),
        ("", "a mapping"),
    ],
    ids=[
        *("unclosed", "repeated key", "alias", "list", "no key", "python tag"),
        *("no int", "no bool", "no map", "huge", "long", "empty"),
    ],
)
def test_bad_yaml_is_one_line_with_the_location(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_mapping(text, "data.yaml")
    assert str(caught.value).startswith("data.yaml")
    assert "\n" not in str(caught.value)


def test_error_has_the_line_number() -> None:
    with pytest.raises(UserError, match=r"x\.yaml:3"):
        parse_mapping("a: 1\nb: 2\na: 3\n", "x.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"\x00" * 64])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError):
        read_mapping(path)


@given(st.text(max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        assert isinstance(parse_mapping(text, "x"), dict)
    except UserError as error:
        assert str(error)
