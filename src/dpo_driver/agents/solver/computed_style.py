"""A row of boxes without words: click the one that the text describes by colour, frame, size, turn or place."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from dpo_driver.agents.experts.page import Decision, Lost, squash
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element

SEEN = re.compile(r"at ([\d.]+),([\d.]+) size ([\d.]+)x([\d.]+)(?: border [\d.]+ (\S+))?")
ASKS = r"\b(?:click|choose|pick|find|wanted|point out|which)\b"
LARGEST = r"\blarge|\bbig|\bspacious|\bbulk|\bgreat|\bhuge"
SMALLEST = r"\bsmall|\blittle|\btin(?:y|ie)|\bslight|\bminut"
TILTED = r"\btilt|\bleans?\b|\blean|\bslant|\baslant|\bcorner|\boblique|\baskew"
LYING = r"\bits side\b|\bwider\b|\blying\b|\blies\b|\blengthwise\b|\bflat\b"
UPRIGHT = r"\bupright\b|\bhigher\b|\btaller\b|\bstand"
FRAME = r"\b(?:frame|border|edge|rim|outline)\b"
COUNTED = {
    "first": 0,
    "1st": 0,
    "second": 1,
    "2nd": 1,
    "third": 2,
    "3rd": 2,
    "fourth": 3,
    "4th": 3,
    "fifth": 4,
    "5th": 4,
}
FROM = re.compile(rf"\b({'|'.join(COUNTED)})\b.*\bfrom the (left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Box:
    """A painted box as the page shows it."""

    element: Element
    color: str
    frame: str
    x: float
    width: float
    height: float


def boxes_of(page: PuzzlePage) -> list[Box]:
    """All painted boxes that can be clicked."""
    found = []
    for element in page.all("clickable"):
        seen = SEEN.match(element.value or "")
        if seen and element.name.endswith(" box"):
            color = element.name.removesuffix(" box")
            width, height = float(seen[3]), float(seen[4])
            found.append(Box(element, color, seen[5] or "", float(seen[1]), width, height))
    return found


def _fitting(said: str, boxes: list[Box]) -> list[Box]:
    """The boxes that a sentence describes; all of them when it describes none."""
    paints = {box.color for box in boxes} | {box.frame for box in boxes if box.frame}
    words = re.findall(r"[a-z0-9#]+", said.lower())
    framed = next((a for a, b in itertools.pairwise(words) if a in paints and re.match(FRAME, b)), None)
    of_box = [word for word in words if word in paints and word != framed]
    if framed:
        boxes = [box for box in boxes if box.frame == framed]
    if of_box:
        boxes = [box for box in boxes if box.color == of_box[0]]
    counted = FROM.search(said)
    if counted:
        boxes = sorted(boxes, key=lambda box: box.x, reverse=counted[2].lower() == "right")
        at = COUNTED[counted[1].lower()]
        return boxes[at : at + 1]
    if re.search(LARGEST, said, re.IGNORECASE):
        return [max(boxes, key=lambda box: box.width * box.height)] if boxes else []
    if re.search(SMALLEST, said, re.IGNORECASE):
        return [min(boxes, key=lambda box: box.width * box.height)] if boxes else []
    return _turned(said, boxes)


def _turned(said: str, boxes: list[Box]) -> list[Box]:
    if re.search(TILTED, said, re.IGNORECASE):
        return [box for box in boxes if 0.8 < box.width / box.height < 1.25]
    if re.search(LYING, said, re.IGNORECASE):
        return [box for box in boxes if box.width > 1.3 * box.height]
    if re.search(UPRIGHT, said, re.IGNORECASE):
        return [box for box in boxes if box.height > 1.3 * box.width]
    return boxes


def _chosen(page: PuzzlePage) -> Box | None:
    boxes = boxes_of(page)
    if len(boxes) < 3:
        return None
    for element in page.observation.elements:
        if element.role == "text" and re.search(ASKS, element.name, re.IGNORECASE):
            fitting = _fitting(squash(element.name), boxes)
            if len(fitting) == 1:
                return fitting[0]
    return None


def recognise(page: PuzzlePage) -> float:
    """How sure it is, 0 to 1, that the page shows this type."""
    if _chosen(page):
        return 0.9
    return 0.2 if len(boxes_of(page)) >= 3 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Click the box that is described."""
    box = _chosen(page)
    if box is None:
        raise Lost("no single box fits the words")
    return page.click(box.element)
