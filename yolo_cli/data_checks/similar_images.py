"""Search for similar images among many, by their thumbnails.

The signs of the low frequencies of a 32×32 thumbnail are cut in bands. Images that share a band are compared on their
thumbnails, so each image is compared with a few others, not with all. A frequency close to 0 can have either sign, so
an image is also looked up with the weakest signs of a band changed.
"""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from yolo_cli.data_checks.image_stats import THUMB

# Measured on coco128, cards and raccoon (docs/check.md): of different photographs, the most similar pair has a detail
# of 0.57. Of re-encoded, resized and brightened copies, 99% have both above the limits of the same picture.
SAME_TONES, SAME_DETAIL = 0.9, 0.75
FRAME_TONES, FRAME_DETAIL = 0.8, 0.65  # frames of one scene

_BAND, _BANDS = 16, 6  # signs per band, and bands
_WEAK = 2  # signs per band that are changed for a look-up
_GROUP = 24  # members of a group that are all compared
_WINDOW = 4  # members of a larger group that each is compared with: those that follow it by name
_MAX_DIFFERENT = 30  # of the 96 signs; of unrelated images, half differ
_PAIRS_PER_BLOCK = 1 << 10  # so that the arrays stay in the cache of the processor


def similar_pairs(
    thumbs: UInt8[np.ndarray, "n side side"], usable: Bool[np.ndarray, " n"], names: Sequence[str]
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float32[np.ndarray, " p"], Float32[np.ndarray, " p"]]:
    """Pairs of similar images, each once, with the similarity of their tones and of their details (1: equal).

    In a large group of alike images, as of a fixed camera, each is compared only with those that follow it by name.
    """
    rows = np.flatnonzero(usable)
    equalized = np.zeros((len(rows), THUMB, THUMB), np.uint8)
    for i, row in enumerate(rows.tolist()):
        equalized[i] = cv2.equalizeHist(thumbs[row])
    used = [names[row] for row in rows.tolist()]
    order = sorted(range(len(used)), key=used.__getitem__)
    name_rank = np.empty(len(rows), np.int64)
    name_rank[order] = np.arange(len(rows))
    first, second = _candidates(_frequencies(equalized), name_rank)
    found = [(rows[:0], rows[:0], np.zeros(0, np.float32), np.zeros(0, np.float32))]
    for start in range(0, len(first), _PAIRS_PER_BLOCK):
        a, b = (side[start : start + _PAIRS_PER_BLOCK] for side in (first, second))
        detail = _detail_correlation(equalized, a, b)
        near = detail >= FRAME_DETAIL
        a, b, detail = a[near], b[near], detail[near]
        tones = np.maximum(
            _correlation(equalized[a], equalized[b], np.ones((len(a), THUMB, THUMB), dtype=bool)),
            _unclipped_correlation(thumbs[rows[a]], thumbs[rows[b]]),
        )
        near = tones >= FRAME_TONES
        found.append((rows[a[near]], rows[b[near]], tones[near], detail[near]))
    pairs_a, pairs_b, tones, detail = (np.concatenate(column) for column in zip(*found, strict=True))
    return pairs_a, pairs_b, tones, detail


def _frequencies(thumbs: UInt8[np.ndarray, "n side side"]) -> Float32[np.ndarray, "n signs"]:
    """The lowest frequencies of the cosine transform, without the mean, in the order of their sum."""
    u = np.arange(THUMB)
    cosine = np.cos(np.pi * (2 * u[None] + 1) * u[:, None] / (2 * THUMB))
    order = sorted(itertools.product(range(16), range(16)), key=lambda pair: (sum(pair), pair))[1 : _BAND * _BANDS + 1]
    basis = np.stack([np.outer(cosine[i], cosine[j]).ravel() for i, j in order]).astype(np.float32)
    values = np.zeros((len(thumbs), len(order)), np.float32)
    for start in range(0, len(thumbs), 4096):
        part = thumbs[start : start + 4096].reshape(-1, THUMB * THUMB).astype(np.float32)
        values[start : start + 4096] = part @ basis.T
    return values


def _candidates(
    frequencies: Float32[np.ndarray, "n signs"], name_rank: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Pairs a < b that share a band of signs and differ in at most _MAX_DIFFERENT of all signs."""
    n = len(frequencies)
    weights = 1 << np.arange(_BAND)
    packed = np.packbits(frequencies > 0, axis=1)
    changes = [change for k in range(_WEAK + 1) for change in itertools.combinations(range(_WEAK), k)]
    found = np.zeros(0, np.int64)  # a · n + b
    for band in range(_BANDS):
        part = frequencies[:, band * _BAND : (band + 1) * _BAND]
        key = (part > 0) @ weights
        weak = weights[np.argsort(np.abs(part), axis=1)[:, :_WEAK]]
        for change in changes:
            looked_up = key ^ weak[:, list(change)].sum(axis=1, dtype=np.int64)
            a, b = _members_of_groups(key, looked_up, name_rank)
            a, b = np.minimum(a, b)[a != b], np.maximum(a, b)[a != b]
            different = np.bitwise_count(packed[a] ^ packed[b]).sum(axis=1)
            near = different <= _MAX_DIFFERENT
            found = np.union1d(found, a[near] * n + b[near])
    return found // max(n, 1), found % max(n, 1)


def _members_of_groups(
    key: Int[np.ndarray, " n"], looked_up: Int[np.ndarray, " n"], name_rank: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Pairs of each image and the images whose key is its `looked_up` one; of many, the next few by name."""
    n = len(key)
    order = np.lexsort((name_rank, key))
    place = key[order] * n + name_rank[order]
    start, stop = (np.searchsorted(place, each * n) for each in (looked_up, looked_up + 1))
    large = stop - start > _GROUP
    start = np.where(large, np.searchsorted(place, looked_up * n + name_rank), start)
    count = np.minimum(stop - start, np.where(large, _WINDOW, _GROUP))
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(np.arange(n), count), order[np.repeat(start, count) + within]


def _detail_correlation(
    equalized: UInt8[np.ndarray, "n side side"], a: Int[np.ndarray, " p"], b: Int[np.ndarray, " p"]
) -> Float32[np.ndarray, " p"]:
    """Correlation without the coarse shading, which different images of one room share."""
    used, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    details = np.zeros((len(used), THUMB * THUMB), np.float32)
    for i, row in enumerate(used.tolist()):
        image = equalized[row].astype(np.float32)
        details[i] = (image - cv2.GaussianBlur(image, (0, 0), 3)).ravel()
    details -= details.mean(axis=1, keepdims=True)
    details /= np.maximum(np.linalg.norm(details, axis=1, keepdims=True), 1e-6)
    return np.einsum("pd,pd->p", details[place[: len(a)]], details[place[len(a) :]])


def _unclipped_correlation(
    a: UInt8[np.ndarray, "p side side"], b: UInt8[np.ndarray, "p side side"]
) -> Float32[np.ndarray, " p"]:
    """Correlation of the pixels that are neither black nor white in one of both; 0 if these are too few."""
    valid = (np.minimum(a, b) > 5) & (np.maximum(a, b) < 250)
    enough = valid.sum(axis=(1, 2)) >= 0.3 * THUMB * THUMB
    return np.where(enough, _correlation(a, b, valid), np.float32(0))


def _correlation(
    a: UInt8[np.ndarray, "p side side"], b: UInt8[np.ndarray, "p side side"], valid: Bool[np.ndarray, "p side side"]
) -> Float32[np.ndarray, " p"]:
    """Correlation of the valid pixels."""
    count = np.maximum(valid.sum(axis=(1, 2)), 1).astype(np.float32)[:, None, None]

    def centered(image: np.ndarray) -> np.ndarray:
        values = image.astype(np.float32) * valid
        return (values - values.sum(axis=(1, 2), keepdims=True) / count) * valid

    x, y = centered(a), centered(b)
    scale = np.sqrt((x * x).sum(axis=(1, 2)) * (y * y).sum(axis=(1, 2)))
    return (x * y).sum(axis=(1, 2)) / np.maximum(scale, np.float32(1e-6))
