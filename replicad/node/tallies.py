"""Histograms whose observations cost next to nothing: a bisection and two additions.

``prometheus_client``'s own take a lock for every number they change, which the event loop's thread does not need.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class Tally:
    """The observations of one combination of labels."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Observations by bucket, the last one those above all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; on the event loop's thread only."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Tallies(Collector):
    """A histogram with labels, for one registry."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], registry: CollectorRegistry, bounds: tuple[float, ...]
    ) -> None:
        """``bounds``: upper bounds of the buckets, ascending, without infinity."""
        self.name = name
        self.text = text
        self.labelnames = labels
        self.bounds = bounds
        self.children: dict[tuple[str, ...], Tally] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """Return the tally of one combination of label values."""
        child = self.children.get(values)
        if child is None:
            child = self.children[values] = Tally(self.bounds)
        return child

    def observe(self, value: float) -> None:
        """Count one observation of a histogram without labels."""
        self.children[()].observe(value)

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Forget every combination that has these labels."""
        where = {self.labelnames.index(name): value for name, value in labels.items()}
        for values in list(self.children):
            if all(values[at] == value for at, value in where.items()):
                del self.children[values]

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family without samples: nothing need be collected to know its name."""
        yield HistogramMetricFamily(self.name, self.text, labels=self.labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family with what was observed so far."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labelnames)
        bounds = [*map(floatToGoString, self.bounds), "+Inf"]
        for values, child in self.children.items():
            family.add_metric(values, list(zip(bounds, accumulate(child.counts), strict=True)), child.total)
        yield family
