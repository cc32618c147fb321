"""DPO-Driver's older rows, ``{prompt, completion}`` and ``{prompt, chosen, rejected}``, with CLICK(selector="...").

Texts are brought into today's form, ``thought: ...`` and ``action: click("...")``, because what is trained is what is
served; the selector stays as written, as the reference. ``<think>...</think>`` is read as the thought. A rejected text
that nobody can read is kept as it is: it is rejected for a reason. Called through readers.py and by gauntlet.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.actions import ACTIONS, Action, format_action, parse_action
from dpo_driver.core.errors import ActionError
from dpo_driver.core.records import Message, Preference, TrainingSample
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.formats import parse_answer, parse_prompt
from dpo_driver.preferences.jsonl import Row, RowError, read_jsonl, require

SOURCE = "import"
_DIALECT = re.compile(r"(?:^|[Aa]ction\s*:)\s*(?:CLICK|TYPE|SELECT|CHECK)\s*\(|</think>\s*[A-Za-z_]+\(", re.MULTILINE)
_CALL = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(.*\)\s*", re.DOTALL)
_KNOWN = frozenset({*ACTIONS, "CLICK", "TYPE", "SELECT", "CHECK"})


def read_legacy_samples(path: str | Path) -> list[TrainingSample]:
    """Rows ``{prompt, completion}``. Raises DataError naming file and lines, also where an action cannot be read."""
    return read_jsonl(path, _sample)


def read_legacy_preferences(path: str | Path) -> list[Preference]:
    """Rows ``{prompt, chosen, rejected}``. Raises DataError naming file and lines."""
    return read_jsonl(path, _preference)


def is_legacy_text(text: str) -> bool:
    """The text holds an action of the older dialect, or an action straight after a think tag."""
    return bool(_DIALECT.search(text))


def modern_text(text: str, thought: str = "") -> str:
    """An assistant text in today's form: ``thought: ...`` (if there is one) and ``action: <call>``.

    Args:
        text: thought and action in any form :func:`agents.prompt.parse_completion` reads, or a bare action.
        thought: used when the text itself holds none.

    Raises:
        RowError: there is no call of an action in it.
    """
    inner, action = read_text(text)
    written = format_action(action) if not isinstance(action, str) else action
    said = " ".join((inner or thought).split())
    return f"thought: {said}\naction: {written}" if said else f"action: {written}"


def read_text(text: str) -> tuple[str, Action | str]:
    """Thought and action of an older text. The action is a text when it is a call that our grammar does not know,
    such as ``mouse_wheel(...)``: it stays readable in the data, though no agent may do it."""
    thought, written = _split(text)
    try:
        return thought, parse_action(written)
    except ActionError as error:
        call = _CALL.fullmatch(written)
        if call and call[1] not in _KNOWN:
            return thought, written
        raise RowError(f"cannot read the action in {text[:80]!r}: {error}") from None


def _split(text: str) -> tuple[str, str]:
    try:
        thought, action = parse_completion(text)
    except ActionError:
        pass
    else:
        return thought, format_action(action)
    before, tag, after = text.rpartition("</think>")
    if tag:
        return before.partition("<think>")[2].strip(), _last_call(after)
    head, label, written = text.rpartition("action:")
    if label:
        return re.sub(r"^\s*thought\s*:\s*", "", head, flags=re.IGNORECASE).strip(), written.strip()
    return "", text.strip()


def _last_call(text: str) -> str:
    """The first line that is a call; models wrote remarks around it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return next((line for line in lines if _CALL.fullmatch(line)), text.strip())


def _sample(row: Row) -> TrainingSample:
    messages = parse_prompt(require(row, "prompt"))
    completion = modern_text(parse_answer(row, "completion"))
    identity = digest(messages, completion)
    return TrainingSample(id=identity, messages=messages, completion=completion, source=SOURCE)


def _preference(row: Row) -> Preference:
    messages = parse_prompt(require(row, "prompt"))
    return text_preference(messages, parse_answer(row, "chosen"), parse_answer(row, "rejected"), {})


def text_preference(messages: tuple[Message, ...], chosen: str, rejected: str, evidence: Row) -> Preference:
    """An imported preference between two older texts; RowError when they come to the same decision."""
    better, worse = modern_text(chosen), rejected
    try:
        worse = modern_text(rejected)
    except RowError:
        pass
    else:
        if read_text(chosen)[1] == read_text(rejected)[1]:
            raise RowError("chosen and rejected are equal: both decide on the same action")
    return Preference(
        id=digest(messages, better, worse),
        messages=messages,
        chosen=better,
        rejected=worse,
        level="text",
        source=SOURCE,
        evidence=evidence,
    )
