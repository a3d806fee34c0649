"""What is kept and what is forgotten."""

from __future__ import annotations

import pytest

from simulator.errors import ApiError
from simulator.store import Kind, Store

SHORT = Kind("short", "s_", 8, "No {id}.", most=2)
CHILD = Kind("child", "c_", 8, "No {id}.")


def test_the_oldest_is_forgotten_unless_it_is_under_way() -> None:
    store = Store()
    first, second = store.add(SHORT, {}), store.add(SHORT, {})
    first.hidden["under_way"] = True
    third, fourth = store.add(SHORT, {}), store.add(SHORT, {})
    assert {thing.id for thing in store.all(SHORT)} >= {first.id, fourth.id}
    assert store.find(SHORT, second.id) is None
    assert third.id != fourth.id


def test_children_are_found_under_their_parent_only_and_go_with_it() -> None:
    store = Store()
    parent, other = store.add(SHORT, {}), store.add(SHORT, {})
    child = store.add(CHILD, {}, parent=parent.id)
    assert store.get(CHILD, child.id, parent.id) is child
    with pytest.raises(ApiError, match=f"No {child.id}"):
        store.get(CHILD, child.id, other.id)
    store.remove(parent)
    assert store.find(CHILD, child.id, parent.id) is None


def test_ids_are_as_long_as_they_are_at_openai_and_never_the_same() -> None:
    for digits in (8, 22, 24, 32, 48):
        kind = Kind("x", "x_", digits, "")
        ids = {kind.new_id() for _ in range(200)}
        assert len(ids) == 200
        assert {len(id) for id in ids} == {digits + 2}
