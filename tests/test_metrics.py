"""What /metrics holds of namespaces, of which there may be any number."""

from indexd.telemetry.metrics import Metrics


def lines(metrics: Metrics, documents: dict[str, int]) -> list[str]:
    return [
        line for line in metrics.render(documents).decode().splitlines() if "namespace=" in line
    ]


def test_the_largest_namespaces_have_a_line_and_the_rest_has_one() -> None:
    assert lines(Metrics(2), {"a": 1, "b": 5, "c": 3, "d": 2, "empty": 0}) == [
        'index_items_total{namespace="b"} 5.0',
        'index_items_total{namespace="c"} 3.0',
        'index_items_total{namespace="_other"} 3.0',
    ]


def test_a_namespace_that_is_called_like_the_rest_is_counted_with_it() -> None:
    metrics = Metrics(2)
    for namespace in ("_other", "a", "b", "c"):
        metrics.forgotten.labels(namespace, "manual").inc()
    assert lines(metrics, {"_other": 7, "a": 5, "b": 3, "c": 2}) == [
        'index_items_forgotten_total{namespace="_other",reason="manual"} 2.0',
        'index_items_forgotten_total{namespace="a",reason="manual"} 1.0',
        'index_items_forgotten_total{namespace="b",reason="manual"} 1.0',
        'index_items_total{namespace="a"} 5.0',
        'index_items_total{namespace="b"} 3.0',
        'index_items_total{namespace="_other"} 9.0',
    ]
