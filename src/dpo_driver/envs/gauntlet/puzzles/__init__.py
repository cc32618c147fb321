"""The types of puzzle by name. A new type is a file here, a component of the same name, and one line in this table."""

from __future__ import annotations

from importlib import import_module

from dpo_driver.envs.gauntlet.puzzles.base import Puzzle

# name -> class; the module is the name with underscores
TYPES: dict[str, str] = {
    "animated-button": "AnimatedButton",
    "audio": "Audio",
    "calculated-code": "CalculatedCode",
    "click-reveal": "ClickReveal",
    "click-sequence": "ClickSequence",
    "computed-style": "ComputedStyle",
    "conditional": "Conditional",
    "delayed-reveal": "DelayedReveal",
    "drag-drop": "DragDrop",
    "draw": "Draw",
    "encoded": "Encoded",
    "encrypted": "Encrypted",
    "form-fill": "FormFill",
    "frames": "Frames",
    "hidden-text": "HiddenText",
    "hover-reveal": "HoverReveal",
    "key-sequence": "KeySequence",
    "math": "Math",
    "memory": "Memory",
    "multi-step": "MultiStep",
    "multi-tab": "MultiTab",
    "mutation": "Mutation",
    "radio-force": "RadioForce",
    "rotating-code": "RotatingCode",
    "scroll-find": "ScrollFind",
    "service-worker": "ServiceWorker",
    "shadow-dom": "ShadowDom",
    "slider": "Slider",
    "split-parts": "SplitParts",
    "storage": "Storage",
    "timing": "Timing",
    "video": "Video",
    "visible-text": "VisibleText",
    "websocket": "Websocket",
}
HELD_OUT = frozenset({"animated-button", "computed-style", "conditional", "split-parts"})  # for evaluation only


def load_puzzle(name: str) -> type[Puzzle]:
    """The class of a type; KeyError for an unknown name."""
    module = import_module(f"dpo_driver.envs.gauntlet.puzzles.{name.replace('-', '_')}")
    found: type[Puzzle] = getattr(module, TYPES[name])
    return found
