"""Who is shown which comparison next. Called by work.py; knows ids and names only, no page and no log.

Some comparisons are for everybody (the *overlap*, from which agreement is measured), the others for whoever comes
first. What a rater has open is *leased*, so that tabs and raters do not meet; a lease ends by itself. Now and then a
rater is shown an earlier comparison once more with its sides swapped, and is not told: a *repeat*. All draws follow
from the seed, so a server that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dpo_driver.label.candidates import mix

LEASE_S = 600.0
GAP = 6  # labels between a comparison and its repeat, at least: it should not be remembered
MOST_BEHIND = 1000  # then what was labelled since is taken out
WHOLE = 1 << 64  # what mix() stays below


@dataclass(frozen=True)
class Showing:
    """One comparison before one rater. ``Showing("6f0c...", "5f...", "ann", swapped=True, repeat=False)``: ``id`` says
    nothing of the rest to who sees it; ``swapped``: side A is the comparison's second answer."""

    id: str
    comparison: str
    rater: str
    swapped: bool
    repeat: bool


@dataclass(frozen=True)
class Progress:
    """How far a rater came. Repeats count like others, or they would not stay hidden. ``elsewhere``: open ones that
    others are looking at; ``skipped``: put off by this rater."""

    done: int
    total: int
    elsewhere: int
    skipped: int


@dataclass
class _Rater:
    firsts: list[str] = field(default_factory=list)  # comparisons in the order in which they were labelled
    known: set[str] = field(default_factory=set)  # the same as a set
    repeated: set[str] = field(default_factory=set)
    repeating: set[str] = field(default_factory=set)  # open as repeats
    shared: int = 0  # how many of the firsts are for everybody
    cursor: int = 0  # what stands before it in the order is labelled or lies in `behind`
    behind: dict[str, None] = field(default_factory=dict)  # handed out, leased elsewhere or skipped; not yet labelled
    skipped: dict[str, None] = field(default_factory=dict)  # longest put off first
    again: list[Showing] = field(default_factory=list)  # taken back, to be shown at once
    looked_back: int = 0  # what `_returned` was when nothing free was found behind
    due: list[int] = field(default_factory=lambda: [0])  # due[n]: repeats that n first labels bring
    draws: random.Random | None = None  # what decides it


class Queue:
    """The order of comparisons for any number of raters. One thread asks; nothing here waits.

    Args:
        seed: of every draw.
        repeats: share of first labels that bring a hidden repeat.
        overlap: share of comparisons that every rater is asked for.
        lease_s: how long an open comparison is kept for who has it.
        clock: seconds, any zero.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        repeats: float = 0.1,
        overlap: float = 0.2,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seed, self.repeats, self.overlap, self.lease_s, self._clock = seed, repeats, overlap, lease_s, clock
        self.order: list[str] = []
        self._place: dict[str, int] = {}
        self._shared: set[str] = set()
        self._labelled_by: dict[str, set[str]] = {}
        self._singles_open = 0  # for one rater, and without a label
        self._raters: dict[str, _Rater] = {}
        self._leases: dict[str, tuple[Showing, float]] = {}  # the one that ends first stands first
        self._returned = 0  # how often something handed out became free again without a label
        self._open_with: dict[str, set[str]] = {}  # comparison -> raters who have it open for the first time

    # -- what there is and what was done -------------------------------------------------------------------------------

    def add(self, comparisons: Iterable[str]) -> None:
        """Put more comparisons at the end, in their order; known ones are passed over."""
        for identity in comparisons:
            if identity in self._place:
                continue
            self._place[identity] = len(self.order)
            self.order.append(identity)
            self._labelled_by[identity] = set()
            if mix(self.seed, "overlap", identity) < self.overlap * WHOLE:
                self._shared.add(identity)
            else:
                self._singles_open += 1

    def took(self, rater: str, comparison: str, repeat: bool) -> None:
        """A label stands. That of a comparison which is not here is passed over."""
        if comparison not in self._place:
            return
        mine = self._rater(rater)
        if repeat:
            mine.repeated.add(comparison)
        elif comparison not in mine.known:
            mine.firsts.append(comparison)
            mine.known.add(comparison)
            self._count(mine, comparison, 1)
            self._labelled_by[comparison].add(rater)
        mine.skipped.pop(comparison, None)
        self._release(rater, comparison, repeat)

    def gave_back(self, rater: str, comparison: str, repeat: bool) -> None:
        """A label was withdrawn."""
        mine = self._rater(rater)
        if repeat:
            mine.repeated.discard(comparison)
        elif comparison in mine.known:
            mine.firsts.remove(comparison)
            mine.known.discard(comparison)
            self._labelled_by[comparison].discard(rater)
            self._count(mine, comparison, -1)
            self._returned += 1
            for other in self._raters.values():  # anybody may want it again
                other.cursor = min(other.cursor, self._place[comparison])

    def _count(self, mine: _Rater, comparison: str, by: int) -> None:
        """Called after a first label was taken back, and before one is written down."""
        if comparison in self._shared:
            mine.shared += by
        elif not self._labelled_by[comparison]:
            self._singles_open -= by

    def remove(self, comparison: str) -> None:
        """A comparison was withdrawn: nobody is shown it any more. Labels of it are passed over."""
        if comparison not in self._place:
            return
        for mine in self._raters.values():
            if comparison in mine.known:
                mine.firsts.remove(comparison)
                mine.known.discard(comparison)
                mine.shared -= comparison in self._shared
            mine.repeated.discard(comparison)
            mine.skipped.pop(comparison, None)
            mine.again[:] = [showing for showing in mine.again if showing.comparison != comparison]
        if comparison not in self._shared and not self._labelled_by[comparison]:
            self._singles_open -= 1
        self._shared.discard(comparison)
        del self._place[comparison], self._labelled_by[comparison]
        for showing, _ in list(self._leases.values()):
            if showing.comparison == comparison:
                self._let_go(self._leases.pop(showing.id))

    # -- what comes next -----------------------------------------------------------------------------------------------

    def next(self, rater: str) -> Showing | None:
        """The next comparison for a rater, leased; None when there is nothing for them, or nothing for now."""
        self._expire()
        mine = self._rater(rater)
        found = self._taken_back(mine) or self._repeat(rater, mine) or self._first(rater, mine)
        found = found or self._in_another_tab(rater) or self._skipped(rater, mine)
        if found is not None:
            self.renew(found)
        return found

    def _taken_back(self, mine: _Rater) -> Showing | None:
        while mine.again:
            showing = mine.again.pop()
            if not self.is_done(showing):
                return showing
        return None

    def _repeat(self, rater: str, mine: _Rater) -> Showing | None:
        owed = self._due(rater, mine, len(mine.firsts)) - len(mine.repeated | mine.repeating)
        ready = len(mine.firsts) - GAP
        if owed <= 0 or ready <= 0:
            return None
        start = mix(self.seed, "which", rater, len(mine.repeated)) % ready
        for step in range(ready):
            comparison = mine.firsts[(start + step) % ready]
            if comparison not in mine.repeated and comparison not in mine.repeating:
                return self.showing(rater, comparison, repeat=True)
        return None

    def _first(self, rater: str, mine: _Rater) -> Showing | None:
        if mine.looked_back < self._returned or len(mine.behind) > MOST_BEHIND:
            for comparison in list(mine.behind):
                if not self._wanted(mine, comparison):
                    del mine.behind[comparison]
                elif comparison not in mine.skipped and self._free(rater, comparison):
                    return self.showing(rater, comparison, repeat=False)
            mine.looked_back = self._returned
        while mine.cursor < len(self.order):
            comparison = self.order[mine.cursor]
            mine.cursor += 1
            if self._wanted(mine, comparison):
                mine.behind[comparison] = None
                if comparison not in mine.skipped and self._free(rater, comparison):
                    return self.showing(rater, comparison, repeat=False)
        return None

    def _in_another_tab(self, rater: str) -> Showing | None:
        """Nothing else is left: better shown twice than not at all, for that tab may be closed."""
        mine = (showing for showing, _ in self._leases.values() if showing.rater == rater)
        return next((showing for showing in mine if not self.is_done(showing)), None)

    def _skipped(self, rater: str, mine: _Rater) -> Showing | None:
        for comparison in mine.skipped:
            if self._wanted(mine, comparison) and self._free(rater, comparison):
                return self.showing(rater, comparison, repeat=False)
        return None

    def _wanted(self, mine: _Rater, comparison: str) -> bool:
        if comparison in mine.known or comparison not in self._place:
            return False
        return comparison in self._shared or not self._labelled_by[comparison]

    def _free(self, rater: str, comparison: str) -> bool:
        having = self._open_with.get(comparison)
        return not having or (comparison in self._shared and rater not in having)

    # -- showings ------------------------------------------------------------------------------------------------------

    def showing(self, rater: str, comparison: str, repeat: bool) -> Showing:
        """The one way in which this rater is shown this comparison, first or once more."""
        swapped = bool(mix(self.seed, "side", rater, comparison) % 2) is not repeat
        return Showing(self._identity(rater, comparison, repeat), comparison, rater, swapped, repeat)

    def find(self, rater: str, identity: str) -> Showing | None:
        """The showing that an id stands for, from before a restart too; None if it is none of this rater's."""
        held = self._leases.get(identity)
        if held is not None:
            return held[0] if held[0].rater == rater else None
        for comparison in self._place:
            for repeat in (False, True):
                if self._identity(rater, comparison, repeat) == identity:
                    return self.showing(rater, comparison, repeat)
        return None

    def is_done(self, showing: Showing) -> bool:
        """A label of this showing stands."""
        mine = self._rater(showing.rater)
        return showing.comparison in (mine.repeated if showing.repeat else mine.known)

    def renew(self, showing: Showing) -> None:
        """Lease it, or lease it for longer."""
        self._leases.pop(showing.id, None)
        self._leases[showing.id] = (showing, self._clock() + self.lease_s)
        if showing.repeat:
            self._rater(showing.rater).repeating.add(showing.comparison)
        else:
            self._open_with.setdefault(showing.comparison, set()).add(showing.rater)

    def skip(self, showing: Showing) -> None:
        """Put it off until nothing else is left for this rater. A repeat is not forced on anybody: it counts as given,
        until the server starts anew."""
        mine = self._rater(showing.rater)
        if showing.repeat:
            mine.repeated.add(showing.comparison)
        elif showing.comparison not in mine.known:
            mine.skipped.pop(showing.comparison, None)
            mine.skipped[showing.comparison] = None
            mine.behind[showing.comparison] = None
        self._returned += 1
        self._release(showing.rater, showing.comparison, showing.repeat)

    def again(self, showing: Showing) -> None:
        """Show it next: what was done with it has been taken back."""
        mine = self._rater(showing.rater)
        mine.skipped.pop(showing.comparison, None)
        if showing.repeat:
            mine.repeated.discard(showing.comparison)
        mine.again.append(showing)

    def progress(self, rater: str) -> Progress:
        """How far this rater is, without going through the comparisons."""
        mine = self._rater(rater)
        left = len(self._shared) - mine.shared + self._singles_open
        firsts = len(mine.firsts)
        repeats = max(len(mine.repeated), self._due(rater, mine, firsts + left))
        elsewhere = sum(
            1 for showing, _ in self._leases.values()
            if showing.rater != rater and not showing.repeat and self._wanted(mine, showing.comparison)
            and showing.comparison not in self._shared
        )  # fmt: skip
        return Progress(firsts + len(mine.repeated), firsts + left + repeats, elsewhere, len(mine.skipped))

    # -- small parts ---------------------------------------------------------------------------------------------------

    def _rater(self, name: str) -> _Rater:
        found = self._raters.get(name)
        if found is None:
            found = self._raters[name] = _Rater()
        return found

    def _due(self, rater: str, mine: _Rater, firsts: int) -> int:
        """Repeats that so many first labels bring. Which do follows from the seed, so a restart owes the same."""
        due = mine.due
        if mine.draws is None:
            mine.draws = random.Random(f"{self.seed}/repeats/{rater}")
        while len(due) <= firsts:
            due.append(due[-1] + (mine.draws.random() < self.repeats))
        return due[firsts]

    def _identity(self, rater: str, comparison: str, repeat: bool) -> str:
        written = f"{self.seed}\x1f{rater}\x1f{comparison}\x1f{int(repeat)}"
        return hashlib.sha256(written.encode()).hexdigest()[:20]

    def _release(self, rater: str, comparison: str, repeat: bool) -> None:
        self._let_go(self._leases.pop(self._identity(rater, comparison, repeat), None))

    def _let_go(self, lease: tuple[Showing, float] | None) -> None:
        if lease is None:
            return
        showing = lease[0]
        if showing.repeat:
            self._rater(showing.rater).repeating.discard(showing.comparison)
            return
        having = self._open_with.get(showing.comparison, set())
        having.discard(showing.rater)
        if not having:
            self._open_with.pop(showing.comparison, None)

    def _expire(self) -> None:
        now = self._clock()
        while self._leases:
            identity, (_, until) = next(iter(self._leases.items()))
            if until > now:
                return
            self._returned += 1
            self._let_go(self._leases.pop(identity))
