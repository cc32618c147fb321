"""The pure tree of a search over page states: which decision is tried next, and what was learned of each.

A node is the page that some decisions lead to from a task's start; an edge is a decision. Every decision of a played
line becomes a node, because a browser action is too dear to be forgotten, and every node remembers the value of each
line through it: its Q value is their mean, its visits are their number. Which node is tried next is UCB1's choice among
what is still open. Called by rollout/search.py. Knows neither environments nor agents, and plays nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from dpo_driver.core.actions import Action, format_action
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step

UNREADABLE = "unreadable"


def ucb1(mean: float, visits: int, parent_visits: int, exploration: float) -> float:
    """Upper confidence bound: ``ucb1(0.5, 4, 16, 1.4)`` is 0.5 + 1.4 * sqrt(ln 16 / 4); infinite for what was never
    tried."""
    if visits == 0:
        return math.inf
    return mean + exploration * math.sqrt(math.log(max(1, parent_visits)) / visits)


def blended(outcome: float, critic: float | None, blend: float) -> float:
    """``blend * outcome + (1 - blend) * critic``; the outcome alone where the critic says nothing."""
    return outcome if critic is None else blend * outcome + (1 - blend) * critic


def decision_of(action: Action | None) -> str:
    """What a decision is told apart by: the action, however it was worded."""
    return UNREADABLE if action is None else format_action(action)


def move_of(step: Step) -> Move:
    """A recorded step as a decision that can be taken once more, word for word."""
    return Move(step.action, step.thought, step.completion, step.messages, step.generation, step.parse_error)


def looks(page: Observation) -> tuple[str, bool]:
    """What must be the same for two pages to be one node: the state, and whether the last action failed, because a
    prompt says so."""
    return page.state_hash, bool(page.last_error)


@dataclass(eq=False)
class Node:
    """A page after some decisions. ``move`` led here (None at the start), ``step`` is its record once it was played,
    and ``page`` what was seen then: None where nobody has been, or where the episode was over."""

    move: Move | None = None
    parent: Node | None = None
    children: dict[str, Node] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)  # by line
    step: Step | None = None
    page: Observation | None = None
    offered: int = 0  # how many of the candidates were this decision
    asked: bool = False  # for candidates, in this round
    closed: bool = False  # nothing below is left to try
    refused: bool = False  # the same decisions led to another page

    @property
    def visits(self) -> int:
        return len(self.values)

    @property
    def q(self) -> float:
        """Mean value of the lines through here; 0 where there is none."""
        return fmean(self.values.values()) if self.values else 0.0

    @property
    def path(self) -> list[Node]:
        """From the start to this node, both included."""
        nodes = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return nodes[::-1]

    @property
    def decisions(self) -> list[str]:
        """What was decided on the way here."""
        return [decision_of(node.move.action) for node in self.path[1:] if node.move is not None]

    @property
    def history(self) -> list[Step]:
        """The steps on the way here, as an agent is shown them."""
        return [node.step for node in self.path[1:] if node.step is not None]

    def untried(self) -> list[Node]:
        """Decisions that no line has taken, the commonest candidate first."""
        new = [child for child in self.children.values() if not child.visits and not child.closed]
        return sorted(new, key=lambda child: -child.offered)


class Tree:
    """What is known of one task's pages. ``exploration`` is UCB1's constant."""

    def __init__(self, exploration: float = 1.4) -> None:
        self.root = Node()
        self._exploration = exploration

    @property
    def begun(self) -> bool:
        """Whether the start has been seen."""
        return self.root.page is not None

    def select(self) -> Node | None:
        """The node at which a decision is to be tried: one that was not asked for candidates, or has untried ones. None
        when nothing is open any more."""
        node = self.root
        while not node.closed:
            if not node.asked or node.untried():
                return node
            visits = node.visits
            node = max(
                (child for child in node.children.values() if not child.closed),
                key=lambda child: ucb1(child.q, child.visits, visits, self._exploration),
            )
        return None

    def offer(self, node: Node, moves: Sequence[Move]) -> int:
        """Candidates of a node; equal actions are one decision, and what cannot be read is none. Returns how many of
        them are new."""
        before = len(node.children)
        for move in moves:
            if move.action is not None:
                child = node.children.setdefault(decision_of(move.action), Node(move, node))
                child.offered += 1
        node.asked = True
        self._close(node)
        return len(node.children) - before

    def reopen(self) -> None:
        """Everything was tried: every page may be asked for candidates once more."""
        for node in self.nodes():
            if node.page is not None and not node.refused:
                node.asked = node.closed = False

    def first_new(self, steps: Sequence[Step]) -> int:
        """Which of a line's decisions no line has taken before, the first of them; the last one if there is none."""
        node: Node | None = self.root
        for index, step in enumerate(steps):
            node = node.children.get(decision_of(step.action)) if node is not None else None
            if node is None or not node.visits:
                return index
        return len(steps) - 1

    def add(self, line: str, steps: Sequence[Step], value: float) -> Node | None:
        """Give a played line's value to every decision of it.

        Returns:
            None, or the node at which the line parts from the tree: the same decisions, another page, or one that was
            refused before. Nothing is learned from it then; the caller refuses the node.
        """
        parted = self._parted(steps)
        if parted is not None:
            return parted
        node = self.root
        node.page = node.page or steps[0].observation
        node.values[line] = value
        for index, step in enumerate(steps):
            node = node.children.setdefault(decision_of(step.action), Node(move_of(step), node))
            node.step = node.step or step
            node.values[line] = value
            if index + 1 < len(steps):
                node.page = node.page or steps[index + 1].observation
            else:
                node.closed = True
        if node.parent is not None:
            self._close(node.parent)
        return None

    def _parted(self, steps: Sequence[Step]) -> Node | None:
        node: Node | None = self.root
        pages = [step.observation for step in steps]
        if node is not None and node.page is not None and looks(node.page) != looks(pages[0]):
            return node
        for index, step in enumerate(steps):
            node = node.children.get(decision_of(step.action)) if node is not None else None
            if node is None:
                return None
            after = pages[index + 1] if index + 1 < len(steps) else None
            known = node.step is not None
            ended, ends = known and node.page is None, after is None
            if node.refused or (known and ended != ends):
                return node
            if node.page is not None and after is not None and looks(node.page) != looks(after):
                return node
        return None

    def refuse(self, node: Node) -> list[str]:
        """Take a branch out: it is never played again, and every line through it is forgotten, up to the start. Returns
        those lines."""
        lines = list(node.values)
        for above in node.path:
            for line in lines:
                above.values.pop(line, None)
        node.children.clear()
        node.values.clear()
        node.refused = node.closed = True
        if node.parent is not None:
            self._close(node.parent)
        return lines

    def refuse_decisions(self, decisions: Sequence[str]) -> None:
        """Refuse a branch by what was decided on the way there, as it was noted earlier. One whose way is not known any
        more is found again when it is met."""
        node = self.root
        for name in decisions[:-1]:
            if name not in node.children:
                return
            node = node.children[name]
        if decisions:
            self.refuse(node.children.setdefault(decisions[-1], Node(parent=node)))

    def nodes(self) -> Iterator[Node]:
        """All nodes, each after its parent."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    def _close(self, node: Node) -> None:
        """A node is closed when it was asked for candidates and all of them are; then its parent may be too."""
        here: Node | None = node
        while here is not None and here.asked and all(child.closed for child in here.children.values()):
            here.closed = True
            here = here.parent
