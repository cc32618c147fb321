"""Memory: how tasks were solved, found again by their words, and the agent that is shown it before it decides.

Successful trajectories lie in SQLite FTS5: goal, task family, words of the first page, actions. For a new task the best
few by BM25 stand at the head of the prompt as worked examples; how is agents/prompt.py's, and the profile's id says how
many. A memory learns from no held-out page, and never tells of the task that is asked about: not of its id, not of its
seed, not of a page that looks the same. Called by flywheel/memory.py and core/plugins.py. Knows the policy by its
protocol only: must not import torch, environments or any policy.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.prompt import EXAMPLES, Example, example_of, get_profile, render, with_memory
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import Message, Observation, Sampling, Step, Task, Trajectory

LEARNS_FROM = frozenset({"demo", "train"})
KEPT = 1024  # answers in memory
MOST_WORDS = 64  # of a column in a query, and of a page in the memory
# How much a word counts where it stands: goal, family, page, actions. The same kind of task says most; what is around,
# as rare as its words may be, says little.
_WEIGHTS = (4.0, 8.0, 0.2, 1.0)
_WORD = re.compile(r"\w+")
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS solved (
        number INTEGER PRIMARY KEY, task TEXT UNIQUE NOT NULL, trajectory TEXT NOT NULL, env TEXT NOT NULL,
        family TEXT NOT NULL, seed INTEGER NOT NULL, start TEXT NOT NULL, steps INTEGER NOT NULL, example TEXT NOT NULL
    )""",
    "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(goal, family, page, done, tokenize='unicode61')",
)
_FIND = """SELECT s.trajectory, s.example, bm25(words, {weights}) AS score
    FROM words JOIN solved s ON s.number = words.rowid
    WHERE words MATCH ? AND s.task <> ? AND NOT (s.env = ? AND s.family = ? AND s.seed = ?) AND s.start <> ?
    ORDER BY score, s.trajectory"""


@dataclass(frozen=True)
class Remembered:
    """A solved task that is like another one. ``score`` is BM25's, as SQLite has it: the lower, the more alike."""

    trajectory: str
    example: Example
    score: float


class Memory:
    """``Memory("runs/pocket/memory.db").recall(task, page, 2)``. Threads of one process take turns.

    Args:
        path: the file; made where it is missing, unless ``mode`` is "read". None: nothing is written, it is gone with
            this object. Pickled, a file is its path, open for reading, and one without a file all that it knows.

    Raises:
        StoreError: it is missing, damaged or cannot be written.
    """

    def __init__(self, path: str | Path | None = None, mode: Literal["write", "read"] = "write") -> None:
        self.path = None if path is None else Path(path)
        self._mutex = threading.RLock()
        self._recalled: dict[tuple[str, str, str, int], list[Example]] = {}
        address = ":memory:"
        if self.path is not None:
            if mode == "read" and not self.path.is_file():
                remedy = "make one: dpo-driver remember CONFIG"
                raise StoreError("there is no memory", where=str(self.path), remedy=remedy)
            address = f"{self.path.resolve().as_uri()}?mode={'rwc' if mode == 'write' else 'ro'}"
        with self._errors():
            if self.path is not None and mode == "write":
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(address, uri=True, check_same_thread=False, timeout=30, isolation_level=None)
            for statement in _SCHEMA if mode == "write" else ():
                self._db.execute(statement)

    @classmethod
    def of(cls, content: bytes) -> Memory:
        """What :meth:`__reduce__` made of one without a file."""
        memory = cls()
        memory._db.deserialize(content)
        return memory

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return Memory, (self.path, "read")  # another process looks things up; it learns nothing
        with self._mutex, self._errors():
            return Memory.of, (self._db.serialize(),)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._mutex:
            self._db.close()

    def add(self, trajectories: Iterable[Trajectory]) -> int:
        """Learn from what succeeded: of each task the way with the fewest steps. All of it or nothing.

        Returns:
            How many tasks are known now.

        Raises:
            DataError: a trajectory is of a split that is for choosing or testing.
        """
        found = list(trajectories)
        held_out = next((one for one in found if one.task.split not in LEARNS_FROM), None)
        if held_out is not None:
            raise DataError(f"a memory learns from no {held_out.task.split} page", where=held_out.id,
                            remedy="give it demonstrations and training rollouts")  # fmt: skip
        ordered = sorted((one for one in found if one.success and one.steps), key=lambda one: (len(one.steps), one.id))
        with self._mutex, self._errors():
            self._recalled.clear()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for one in ordered:
                    self._learn(one)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        return len(self)

    def _learn(self, one: Trajectory) -> None:
        example, task = example_of(one.steps), one.task
        known = self._db.execute("SELECT number, steps FROM solved WHERE task=?", (task.id,)).fetchone()
        if not example.done or (known is not None and known[1] <= len(one.steps)):
            return
        if known is not None:
            self._db.execute("DELETE FROM solved WHERE number=?", known[:1])
            self._db.execute("DELETE FROM words WHERE rowid=?", known[:1])
        row = (task.id, one.id, task.env, task.name, task.seed, one.start_hash, len(one.steps))
        number = self._db.execute(
            "INSERT INTO solved (task, trajectory, env, family, seed, start, steps, example) VALUES (?,?,?,?,?,?,?,?)",
            (*row, json.dumps(asdict(example), ensure_ascii=False)),
        ).lastrowid
        page = " ".join(_words_of(one.steps[0].observation))
        self._db.execute("INSERT INTO words (rowid, goal, family, page, done) VALUES (?,?,?,?,?)",
                         (number, example.goal, task.name, page, "\n".join(example.done)))  # fmt: skip

    def recall(self, task: Task, page: Observation, count: int) -> list[Example]:
        """The ``count`` solved tasks that are most like this one, the best first. Looked up once: an agent asks at
        every step of an episode, and siblings ask the same."""
        asked = (task.id, page.state_hash, page.goal, count)
        with self._mutex:
            if asked not in self._recalled:
                if len(self._recalled) >= KEPT:
                    self._recalled.clear()
                self._recalled[asked] = [one.example for one in self.find(task, page, count)]
            return self._recalled[asked]

    def find(self, task: Task, page: Observation, count: int) -> list[Remembered]:
        """Like :meth:`recall`, with where each comes from. Tasks that were solved by the same actions for the same goal
        are told once.

        Args:
            task: the one to be decided on; neither it nor its seed is found.
            page: what it begins with; nothing that began on an equal page is found.
        """
        query = _query(task, page)
        if not query or count < 1:
            return []
        find = _FIND.format(weights=", ".join(map(str, _WEIGHTS)))
        own = (query, task.id, task.env, task.name, task.seed, page.state_hash)
        best: dict[Example, Remembered] = {}
        with self._mutex, self._errors():
            for trajectory, written, score in self._db.execute(find, own):
                told = json.loads(written)
                example = Example(told["goal"], tuple(told["done"]))
                best.setdefault(example, Remembered(trajectory, example, score))
                if len(best) == count:
                    break
        return list(best.values())

    def __len__(self) -> int:
        """Tasks that are known."""
        with self._mutex, self._errors():
            return int(self._db.execute("SELECT count(*) FROM solved").fetchone()[0])

    def digest(self) -> str:
        """16 hex digits over all that is known."""
        with self._mutex, self._errors():
            rows = self._db.execute("SELECT task, trajectory, start, example FROM solved ORDER BY task").fetchall()
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = "remove the file: the next command makes it anew"
            if "fts5" in str(error):
                remedy = "use a Python whose SQLite has full-text search (FTS5)"
            where = None if self.path is None else str(self.path)
            raise StoreError(f"the memory: {error}", where=where, remedy=remedy) from error


class MemoryAgent(PolicyAgent):
    """Prompt with worked examples + policy + parser.

    Args:
        policy: generates.
        memory: what it remembers.
        profile: the prompt profile whose variant with examples is used, such as "chat" or "pocket".
        sampling: see :class:`PolicyAgent`; ``more`` as well.
        examples: most of them in a prompt.
    """

    def __init__(
        self, policy: Policy, memory: Memory, profile: str = "chat", sampling: Sampling | None = None, *,
        examples: int = EXAMPLES, name: str = "memory", **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(policy, profile, sampling, name=name, **more)
        self._memory, self._profile = memory, with_memory(get_profile(profile), examples)

    def _prompt(self, task: Task, observation: Observation, history: Sequence[Step]) -> tuple[Message, ...]:
        # By the page that the task began with: the examples stay the same while it lasts.
        first = history[0].observation if history else observation
        return render(self._profile, observation, history, self._memory.recall(task, first, self._profile.examples))


def _words_of(page: Observation) -> list[str]:
    """The words of a page, each once, in order."""
    texts = (text for e in page.elements for text in (e.role, e.name, e.value or "", *e.options))
    return _words(" ".join([page.title, *texts]))


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(_WORD.findall(text.lower())))[:MOST_WORDS]


def _query(task: Task, page: Observation) -> str:
    """A query of FTS5: any of the words, each in its column. Words are letters and digits, so nothing needs escaping
    within quotation marks."""
    columns = {"goal done": _words(page.goal), "family": _words(task.name), "page": _words_of(page)}
    said = {name: " OR ".join(f'"{word}"' for word in words) for name, words in columns.items() if words}
    return " OR ".join(f"{{{name}}} : ({words})" for name, words in said.items())
