"""The bound that Misra and Gries promise, against exact counts, for any order, any cut into tasks, any merging."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from framework.corpus.report.frequent import FrequentItems
from framework.corpus.report.statistics import DocumentStatistics

ITEMS = st.lists(st.sampled_from([*"aaaaabbbccdefghijklmnopqrstuvwxyz"]), max_size=120)


def check(found: FrequentItems, items: list[str]) -> None:
    exact = Counter(items)
    assert found.items == len(items)
    assert found.error * (found.capacity + 1) <= len(items)
    assert len(found.top(1000)) <= found.capacity
    for item in exact | Counter("?"):
        assert exact[item] - found.error <= found.count(item) <= exact[item]
    if len(exact) <= found.capacity:
        assert found.error == 0


@given(st.lists(ITEMS, min_size=1, max_size=6), st.integers(1, 12))
def test_counts_are_within_the_error_whatever_is_merged(tasks: list[list[str]], capacity: int) -> None:
    parts = [FrequentItems.of(items, capacity) for items in tasks]
    for part, items in zip(parts, tasks, strict=True):
        check(part, items)
    whole = FrequentItems(capacity)
    for part in parts:
        whole.merge(FrequentItems.from_json(part.as_json()))
    check(whole, [item for items in tasks for item in items])
    while len(parts) > 1:  # in another order: as a tree
        last = parts.pop()
        parts[len(parts) // 2].merge(last)
    check(parts[0], [item for items in tasks for item in items])


def test_what_is_frequent_is_found_among_many_that_are_not() -> None:
    items = [item for n in range(2000) for item in (f"rare{n}", "often", f"rare{n}-too")]
    found = FrequentItems.of(items, 9)
    check(found, items)
    assert found.top(1)[0][0] == "often"
    assert found.error > 0


@given(st.lists(st.tuples(st.text(st.characters()), st.text(st.characters(), max_size=20)), max_size=30), st.data())
def test_statistics_of_parts_add_up(documents: list[tuple[str, str]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(documents)))
    parts = []
    for part in (documents, documents[:cut], documents[cut:]):
        parts.append(DocumentStatistics())
        for text, url in part:
            parts[-1].add(text, {"url": f"http://{url}/", "language": url[:1]})
    whole, merged, second = (DocumentStatistics.from_json(part.as_json()) for part in parts)
    merged.merge(second)
    assert merged.as_json() == whole.as_json()
    assert sum(whole.lengths.values()) == whole.documents == len(documents)
    assert whole.characters == sum(len(text) for text, _ in documents)
