"""Guesses at the next tokens: from earlier completions first, then from the prompt; never a change of the result."""

from __future__ import annotations

from dpo_driver.policies.drafts import Drafts, prompt_table


def test_a_prompt_is_copied_from_where_it_said_the_same_last() -> None:
    table = prompt_table([1, 2, 3, 4, 1, 2, 9, 8])
    assert table == {(1, 2): 9, (2, 3): 4, (3, 4): 1, (4, 1): 2, (2, 9): 8}
    assert Drafts().propose(table, [7, 1, 2], 5) == [9, 8]
    assert Drafts().propose(table, [7, 3, 4], 3) == [1, 2, 9]
    assert Drafts().propose(table, [1], 5) == []


def test_an_earlier_completion_is_followed_before_the_prompt() -> None:
    drafts = Drafts()
    drafts.learn([5, 1, 2, 6, 7])
    assert drafts.propose(prompt_table([1, 2, 9]), [5, 1, 2], 9) == [6, 7]
    assert drafts.propose({}, [5], 2) == [1, 2]
    drafts.learn([5, 1, 2, 3])  # the last one counts
    assert drafts.propose({}, [5, 1, 2], 9) == [3]
