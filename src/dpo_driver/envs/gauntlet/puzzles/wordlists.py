"""Words that several puzzles draw their labels from, by skin, and running text made of them.

Used by the puzzles; imports only their base. The two skins share no word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Phrases, Setup

THINGS: Phrases = (
    (
        "anchor apple basket bell bicycle blanket bottle bridge candle carpet chair clock compass cup drum feather "
        "flag fork guitar hammer hat jar kettle kite ladder lamp lemon map mirror needle onion paddle pencil piano "
        "pillow ribbon rope saddle scarf spoon tent umbrella violin wheel whistle"
    ).split(),
    (
        "acorn amber badger barrel beacon beetle birch canoe cheese chimney cloak clover comet copper cradle falcon "
        "fern flute fountain goose harp hedge heron honey ivy lark lighthouse meadow moss oar orchard otter owl "
        "pebble pine plum pond quill raft raven reed sail shell sparrow thistle tulip willow wren"
    ).split(),
)
PLACES: Phrases = (
    (
        "at the back of the hall,on the second shelf,beside the stairs,under the long table,in the waiting room,"
        "near the south exit,behind the counter,next to the window,on the landing,in the old workshop"
    ).split(","),
    (
        "above the harbour,at the edge of the wood,by the mill stream,beyond the last field,under the eaves,"
        "in the walled garden,along the towpath,at the foot of the hill,over the stable,near the ford"
    ).split(","),
)
SENTENCES: Phrases = (
    (
        "The {x} stood {place}, and nobody asked why.",
        "A visitor once left a {x} and a {y} {place}.",
        "Somebody has moved the {x} {place}.",
        "Every Monday the {x} is cleaned {place}.",
        "There used to be a {y} here; now there is only a {x}.",
        "The inventory lists one {x}, one {y} and little else.",
        "Whoever needs the {x} will find it {place}.",
        "Rain is expected, so the {y} stays {place}.",
        "It took three people to carry the {x}.",
        "The {x} was repaired last year and painted green.",
    ),
    (
        "A {x} rested {place} all summer long.",
        "The old tale begins with a {x} {place}.",
        "Two children found a {y} {place}.",
        "No {x} was ever seen {place} after dark.",
        "The miller traded his {x} for a {y}.",
        "Mist lay {place}, and the {x} was gone.",
        "Travellers speak of a {x} {place}.",
        "The song names a {y}, never a {x}.",
        "When the wind turned, the {x} began to move.",
    ),
)


def listed(setup: Setup, lists: Phrases) -> list[str]:
    """The list of this skin."""
    return list(lists[SKINS.index(setup.skin)])


def some(setup: Setup, lists: Phrases, count: int) -> list[str]:
    """So many different entries of this skin's list, in random order."""
    return setup.rng.sample(listed(setup, lists), count)


def prose(setup: Setup, count: int) -> list[str]:
    """Sentences that mean nothing."""
    sentences: Sequence[str] = some(setup, SENTENCES, min(count, len(SENTENCES[SKINS.index(setup.skin)])))
    made = []
    for sentence in sentences:
        x, y = some(setup, THINGS, 2)
        text = sentence.format(x=x, y=y, place=setup.rng.choice(listed(setup, PLACES)))
        made.append(re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text))
    return made
