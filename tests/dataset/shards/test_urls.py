from pathlib import Path

import pytest
import yaml

from yolo_cli.dataset.shards.urls import expand_ranges, is_shard, is_url, without_scheme
from yolo_cli.dataset.spec import load_spec, split_files
from yolo_cli.errors import UserError


@pytest.mark.parametrize(
    ("path", "url", "shard"),
    [
        ("https://host/a.tar", True, True),
        ("https://host/a.TAR?signature=x/y", True, True),
        ("s3://bucket/a.tar.gz", True, False),
        ("/data/a.tar", False, True),
        ("C:\\data\\a.tar", False, True),
        ("images/train", False, False),
    ],
)
def test_kinds_of_paths(path: str, url: bool, shard: bool) -> None:
    assert (is_url(path), is_shard(path)) == (url, shard)


def test_ranges_in_names() -> None:
    assert expand_ranges("a-{08..11}.tar", "") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_ranges("{0..1}/{1..2}.tar", "") == ["0/1.tar", "0/2.tar", "1/1.tar", "1/2.tar"]
    assert expand_ranges("a{b}.tar", "") == ["a{b}.tar"]


@pytest.mark.parametrize("pattern", ["{3..1}.tar", "{0..9999999}.tar", "{0..9999}{0..9999}{0..9999}.tar"])
def test_ranges_without_names_or_with_too_many(pattern: str) -> None:
    with pytest.raises(UserError, match="gives no names, or more than a million"):
        expand_ranges(pattern, "")


def test_a_url_as_a_path() -> None:
    assert without_scheme(b"s3://bucket/a.tar/1.jpg") == b"/bucket/a.tar/1.jpg"
    assert without_scheme(b"/data/a.tar/1.jpg") == b"/data/a.tar/1.jpg"


def files(folder: Path, train: object) -> list[str]:
    (folder / "data.yaml").write_text(yaml.safe_dump({"train": train, "nc": 1}))
    return split_files(load_spec(str(folder / "data.yaml")), "train")


def test_urls_in_a_yaml_are_not_visited(tmp_path: Path) -> None:
    urls = ["https://host/t-0.tar", "https://host/t-1.tar"]
    (tmp_path / "local.tar").touch()
    (tmp_path / "list.txt").write_text("https://host/t-{0..1}.tar\nlocal.tar\n")
    assert files(tmp_path, "https://host/t-{0..1}.tar") == urls
    assert files(tmp_path, urls[::-1]) == urls
    assert files(tmp_path, "list.txt") == [str(tmp_path / "local.tar"), *urls]
    assert files(tmp_path, ["local.tar", "s3://bucket/a.tar"]) == [str(tmp_path / "local.tar"), "s3://bucket/a.tar"]


def test_ranges_of_local_shards(tmp_path: Path) -> None:
    for name in ("t-0.tar", "t-1.tar"):
        (tmp_path / name).touch()
    assert files(tmp_path, "t-{0..1}.tar") == [str(tmp_path / "t-0.tar"), str(tmp_path / "t-1.tar")]
    with pytest.raises(UserError, match=r"train: t-2.tar is not in"):
        files(tmp_path, "t-{0..2}.tar")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("ftp://host/a.tar", r"data.yaml: train: ftp://host/a.tar: ftp:// is not supported; use http, https, s3, gs"),
        ("https:///a.tar", "no host"),
        ("s3:///a.tar", "no bucket"),
        ("https://host/images", "only tar shards can be at a URL"),
        ({"images": "x", "annotations": "https://host/a.json"}, "only tar shards can be at a URL"),
    ],
)
def test_urls_that_cannot_be_used(train: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        files(tmp_path, train)
