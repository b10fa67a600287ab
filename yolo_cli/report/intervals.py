"""Intervals of proportions."""

import math
from dataclasses import dataclass

_Z = 1.959964  # of a 95% interval


@dataclass(frozen=True, slots=True)
class Proportion:
    """`hits` of `count`, with the 95% Wilson interval (Wilson, 1927), which takes the cases to be independent."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end; nan without cases."""
        if not self.count:
            return math.nan, math.nan
        n, p = self.count, self.value
        center = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(center - half, 0.0), min(center + half, 1.0)
