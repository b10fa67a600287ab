"""Checks of option values. Each raises a UserError that names the option."""

import math
import re

from yolo_cli.errors import UserError

SPLITS = ("train", "val", "test")
TILE_AS_IMG = -1  # `--tile` without a value: tiles as large as `--img`
_MAX_SIDE = 16384
_MIN_TILE = 32
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in "dhms"))


def check_at_least(config: object, **lowest: float) -> None:
    """Raises UserError for the first option below its lowest value."""
    for name, low in lowest.items():
        if not getattr(config, name) >= low:  # also true for nan
            raise UserError(f"must be at least {low}", where=given(config, name))


def check_fractions(config: object, *names: str) -> None:
    """Raises UserError for the first option outside 0 to 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UserError("must be from 0 to 1", where=given(config, name))


def check_img(img: tuple[int, int]) -> None:
    """Raises UserError for an image size (height, width) that is not usable."""
    if not all(1 <= side <= _MAX_SIDE for side in img):
        raise UserError(f"image sides must be from 1 to {_MAX_SIDE} pixels", where=f"--img {img[0]} {img[1]}")


def parse_duration(text: str) -> float:
    """Seconds of the value of `--time`, such as 30m, 1h30m or 90s. Raises UserError for anything else."""
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = sum(float(match[i] or 0) * unit for i, unit in enumerate((86400, 3600, 60, 1), start=1)) if match else 0.0
    if not 0 < seconds < math.inf:
        raise UserError("is not a duration", where=f"--time {text}", fix="write 30m, 1h30m or 90s")
    return seconds


def check_tile(tile: int) -> None:
    """Raises UserError for a tile too small to detect in. 0 is no tiling."""
    if tile not in (0, TILE_AS_IMG) and tile < _MIN_TILE:
        raise UserError(f"tiles must have at least {_MIN_TILE} pixels per side", where=f"--tile {tile}")


def resolve_tile(tile: int, img: tuple[int, int]) -> int:
    """The side of a tile in pixels: `--tile` without a value means the larger side of `img`."""
    return max(img) if tile == TILE_AS_IMG else tile


def check_choice(config: object, name: str, choices: tuple[str, ...]) -> None:
    if getattr(config, name) not in choices:
        raise UserError("unknown value", where=given(config, name), fix=f"give {' or '.join(choices)}")


def check_resamples(resamples: int) -> None:
    if not 100 <= resamples <= 1_000_000:
        raise UserError("must be from 100 to 1,000,000", where=f"--resamples {resamples}")


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError("must be from 0 to 2⁶³ - 1", where=f"--seed {seed}")


def check_save_conf(*, save_conf: bool, save_txt: bool) -> None:
    if save_conf and not save_txt:
        raise UserError("adds confidences to txt labels", where="--save-conf", fix="give --save-txt too")


def check_precision(*, half: bool, int8: bool) -> None:
    if half and int8:
        raise UserError("exclude each other", where="--half --int8", fix="leave one out")


def check_threshold_choice(beta: float, min_precision: float | None) -> None:
    """Raises UserError for criteria by which no confidence threshold can be chosen."""
    if not 0 < beta < math.inf:
        raise UserError("must be a number above 0", where=f"--beta {beta}")
    if min_precision is not None and not 0 <= min_precision <= 1:
        raise UserError("must be from 0 to 1", where=f"--min-precision {min_precision}")
    if min_precision is not None and beta != 1:
        raise UserError("exclude each other", where="--beta --min-precision", fix="leave one out")


def given(config: object, name: str) -> str:
    return f"--{name.replace('_', '-')} {getattr(config, name)}"
