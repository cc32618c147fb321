"""Who is shown which comparison next: sides, leases, overlap, repeats, skips, undo, and all that after a restart."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dpo_driver.label.queue import GAP, Queue, Showing


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def filled(count: int = 40, **settings: object) -> Queue:
    queue = Queue(**settings)  # type: ignore[arg-type]
    queue.add(f"c{number:03}" for number in range(count))
    return queue


def answer(queue: Queue, rater: str) -> Showing | None:
    """Take the next comparison and label it."""
    showing = queue.next(rater)
    if showing is not None:
        queue.took(rater, showing.comparison, showing.repeat)
    return showing


def all_of(queue: Queue, rater: str) -> list[Showing]:
    found = []
    while (showing := answer(queue, rater)) is not None:
        found.append(showing)
    return found


def test_every_comparison_is_labelled_once_and_sides_are_shuffled() -> None:
    shown = all_of(filled(400, repeats=0.0), "ann")
    assert [one.comparison for one in shown] == [f"c{number:03}" for number in range(400)]
    swapped = sum(one.swapped for one in shown)
    assert 160 < swapped < 240  # 4 standard deviations around one half
    others = all_of(filled(400, repeats=0.0), "bob")
    assert [one.swapped for one in others] != [one.swapped for one in shown]  # each rater has sides of their own
    assert {one.id for one in shown}.isdisjoint(one.id for one in others)


def test_the_same_seed_gives_the_same_order_and_another_one_another() -> None:
    def run(seed: int) -> list[Showing]:
        return all_of(filled(60, seed=seed, repeats=0.3), "ann")

    assert run(3) == run(3) != run(4)


def test_hidden_repeats_come_at_their_share_later_with_swapped_sides() -> None:
    shown = all_of(filled(500, repeats=0.1), "ann")
    repeats = [place for place, one in enumerate(shown) if one.repeat]
    assert 25 < len(repeats) < 75 and len(shown) == 500 + len(repeats)
    firsts = {one.comparison: place for place, one in enumerate(shown) if not one.repeat}
    for place in repeats:
        earlier = firsts[shown[place].comparison]
        assert place - earlier > GAP
        assert shown[place].swapped is not shown[earlier].swapped
    assert len({shown[place].comparison for place in repeats}) == len(repeats)  # none twice
    gaps = {later - earlier for earlier, later in pairwise(repeats)}
    assert len(gaps) > 5  # not every tenth: that could be counted


def test_progress_does_not_give_repeats_away() -> None:
    queue = filled(100, repeats=0.2)
    done, totals = [], set()
    while True:
        progress = queue.progress("ann")
        done.append(progress.done)
        totals.add(progress.total)
        if answer(queue, "ann") is None:
            break
    assert done[:-1] == list(range(len(done) - 1))  # one more with every answer, repeat or not
    assert len(totals) == 1 and done[-1] == totals.pop()


def test_raters_share_the_work_but_for_the_overlap() -> None:
    queue = filled(300, repeats=0.0, overlap=0.25)
    seen: dict[str, list[str]] = {"ann": [], "bob": []}
    while True:
        taken = [answer(queue, rater) for rater in seen]
        for rater, showing in zip(seen, taken, strict=True):
            if showing:
                seen[rater].append(showing.comparison)
        if not any(taken):
            break
    both = set(seen["ann"]) & set(seen["bob"])
    assert len(set(seen["ann"]) | set(seen["bob"])) == 300
    assert 45 < len(both) < 105 and queue.progress("ann") == queue.progress("ann")
    assert all(len(found) == len(set(found)) for found in seen.values())
    assert queue.progress("ann").done == queue.progress("ann").total == len(seen["ann"])


@pytest.mark.parametrize("overlap", [0.0, 1.0])
def test_tabs_of_one_rater_get_different_comparisons(overlap: float) -> None:
    queue = filled(6, repeats=0.0, overlap=overlap)
    tabs = [queue.next("ann") for _ in range(6)]
    assert len({one.comparison for one in tabs if one}) == 6
    last = queue.next("ann")  # nothing else is left: better twice than never, for that tab may be closed
    assert last == tabs[0]


def test_what_is_open_with_one_rater_is_not_given_to_another_until_the_lease_ends() -> None:
    clock = Clock()
    queue = filled(2, repeats=0.0, overlap=0.0, lease_s=600.0, clock=clock)
    first, second = queue.next("ann"), queue.next("bob")
    assert first and second and first.comparison != second.comparison
    assert queue.next("eve") is None and queue.progress("eve").elsewhere == 2
    clock.now = 500.0
    queue.renew(second)  # bob is still looking
    clock.now = 601.0
    taken = queue.next("eve")
    assert taken is not None and taken.comparison == first.comparison
    queue.took("ann", first.comparison, False)  # late, and welcome
    queue.took("eve", taken.comparison, False)
    assert queue.progress("bob").total == 1 and queue.progress("ann").done == 1


def test_skipped_ones_come_again_when_the_others_are_done() -> None:
    queue = filled(4, repeats=0.0)
    first = queue.next("ann")
    assert first is not None
    queue.skip(first)
    assert queue.progress("ann").skipped == 1
    shown = all_of(queue, "ann")
    assert [one.comparison for one in shown] == ["c001", "c002", "c003", "c000"]
    assert shown[-1] == first  # the same sides


def test_the_last_one_can_be_skipped_and_comes_again() -> None:
    queue = filled(1, repeats=0.0)
    first = queue.next("ann")
    assert first is not None
    queue.skip(first)
    assert queue.next("ann") == first


def test_what_is_taken_back_is_shown_next_with_the_same_sides() -> None:
    queue = filled(10, repeats=0.0, overlap=0.0)
    shown = [answer(queue, "ann") for _ in range(3)]
    ahead = queue.next("ann")
    assert shown[1] is not None and ahead is not None
    queue.gave_back("ann", shown[1].comparison, False)
    queue.again(shown[1])
    assert queue.progress("ann").done == 2
    assert queue.next("ann") == shown[1]
    queue.took("ann", shown[1].comparison, False)
    assert len(all_of(queue, "ann")) == 7


def test_a_comparison_taken_back_is_open_to_others() -> None:
    queue = filled(1, repeats=0.0, overlap=0.0)
    answer(queue, "ann")
    assert queue.next("bob") is None
    queue.gave_back("ann", "c000", False)
    found = queue.next("bob")
    assert found is not None and found.comparison == "c000"


def test_after_a_restart_the_queue_goes_on_as_if_nothing_had_happened() -> None:
    settings = {"seed": 5, "repeats": 0.25, "overlap": 0.3}
    whole = filled(80, **settings)
    expected = all_of(whole, "ann")
    before = filled(80, **settings)
    begun = [answer(before, "ann") for _ in range(30)]
    after = filled(80, **settings)
    for showing in begun:
        assert showing is not None
        after.took("ann", showing.comparison, showing.repeat)
    assert after.progress("ann") == before.progress("ann")
    assert all_of(after, "ann") == expected[30:]


def test_an_id_from_before_a_restart_is_understood_and_a_strangers_is_not() -> None:
    before = filled(5).next("ann")
    assert before is not None
    after = filled(5)
    assert after.find("ann", before.id) == before
    assert after.find("bob", before.id) is None and after.find("ann", "0" * 20) is None


def test_comparisons_can_be_added_and_withdrawn_while_people_label() -> None:
    queue = filled(3, repeats=0.0, overlap=0.5)
    for _ in range(3):
        answer(queue, "ann")
    assert queue.next("ann") is None
    queue.add(["c000", "new"])
    found = queue.next("ann")
    assert found is not None and found.comparison == "new"
    queue.remove("new")
    assert queue.next("ann") is None and queue.find("ann", found.id) is None
    queue.remove("c001")
    assert queue.progress("ann").done == queue.progress("ann").total == 2
    queue.took("ann", "c001", False)  # a label that was on its way
    assert queue.progress("ann").done == 2
