"""Histograms: what they export is what prometheus_client's own would."""

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from replicad.node.tallies import Tallies

BOUNDS = (0.1, 1.0, 2.5)


def without_created(text):
    return [line for line in text.decode().splitlines() if "_created" not in line]


def test_same_text_as_the_library():
    """Bounds belong to their bucket, sums and counts agree, labels too."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    lean = Tallies("seconds", "How long.", ("kind",), ours, BOUNDS)
    full = Histogram("seconds", "How long.", ("kind",), registry=theirs, buckets=BOUNDS)
    for value in (0.0, 0.1, 0.100001, 1.0, 2.5, 2.6, 100.0):
        for metric in (lean, full):
            metric.labels("a").observe(value)
    for metric in (lean, full):
        metric.labels("b").observe(1.5)
    assert without_created(generate_latest(ours)) == without_created(generate_latest(theirs))


def test_without_labels_and_forgetting():
    """One without labels is there from the start; a forgotten combination is shown no more."""
    registry = CollectorRegistry()
    plain = Tallies("plain", "p", (), registry, BOUNDS)
    assert 'plain_bucket{le="+Inf"} 0.0' in generate_latest(registry).decode()
    plain.observe(3)
    labelled = Tallies("labelled", "l", ("group", "kind"), registry, BOUNDS)
    for group in ("g", "h"):
        labelled.labels(group, "k").observe(1)
    labelled.remove_by_labels({"group": "g"})
    text = generate_latest(registry).decode()
    assert 'plain_bucket{le="+Inf"} 1.0' in text
    assert 'group="h"' in text
    assert 'group="g"' not in text
