"""What `yolo val` prints about confidence thresholds."""

import math
from collections.abc import Iterator

from yolo_cli.config.thresholds import DEFAULT
from yolo_cli.evaluation.operating_points import MIN_BOXES, ClassThreshold, Rates, ThresholdChoice

_NAMES = {"per class": "a threshold per class", "overall": "the overall threshold", f"{DEFAULT:g}": f"{DEFAULT:g}"}


def threshold_lines(choice: ThresholdChoice, *, beta: float, verbose: bool) -> Iterator[str]:
    """Lines for the user; the thresholds of each class if `verbose`, or for up to ten classes."""
    if not choice.per_class:
        yield "confidence thresholds: none, because the images have no labels"
        return
    own = [one for one in choice.per_class if one.is_own]
    interval = f"95%: {choice.low:.3f} to {choice.high:.3f}"
    yield f"confidence threshold ({choice.criterion}): {choice.overall:.3f} overall ({interval})"
    few = len(choice.per_class) - len(own)
    if few:
        yield f"{few} of {len(choice.per_class)} classes have fewer than {MIN_BOXES} boxes and take the overall one"
    shown = choice.per_class if verbose or len(choice.per_class) <= 10 else own
    if shown:
        yield f"{'class':>20} {'labels':>8} {'conf':>8} {'95%':>16} {'P':>8} {'R':>8} {f'F{beta:g}':>8}"
    for one in shown:
        interval = f"{one.low:.3f} to {one.high:.3f}" if one.is_own else "overall"
        figures = f"{one.precision:>8.3f} {one.recall:>8.3f} {one.f:>8.3f}"
        yield f"{one.name[:20]:>20} {one.labels:>8,} {one.threshold:>8.3f} {interval:>16} {figures}{_missed(one)}"
    if choice.expected:
        yield "on images that were not used to choose (cross-validation, means over classes):"
        for name, rates in choice.expected.items():
            yield f"  {_rates(rates, beta)} with {_NAMES[name]}"
    else:
        yield "too few images to estimate how the thresholds do on other images"


def saved_line(rates: Rates, default: Rates, beta: float) -> str:
    """How the thresholds in the weights do on the evaluated images."""
    return f"thresholds saved in the weights: {_rates(rates, beta)} here; {_rates(default, beta)} with {DEFAULT:g}"


def _rates(rates: Rates, beta: float) -> str:
    return f"P {rates.precision:.3f} R {rates.recall:.3f} F{beta:g} {rates.f:.3f}" if not math.isnan(rates.f) else "-"


def _missed(one: ClassThreshold) -> str:
    return "" if one.is_reached else "  precision not reached"
