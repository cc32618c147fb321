"""The expert for words of like meaning, with the few that it knows. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

from dpo_driver.agents.experts.page import Decision, Page

# One line, one meaning.
_MEANINGS = """
    big large huge enormous gigantic
    small tiny little mini petite
    red scarlet crimson vermillion
    happy cheerful joyful gleeful delighted
    sad unhappy sorrowful miserable tragic
    angry mad furious irritated
    evil wicked immoral sinful corrupt depraved
    wrong incorrect mistaken erroneous
    real genuine actual
    strange odd peculiar unusual weird
    stop cease halt end finish
    scared terrified panicked fearful frightened afraid
    quiet calm peaceful serene mild
    old aged archaic
    love like adore favor
    kill murder assassinate
    keep retain preserve sustain maintain
    hide conceal camouflage
    hate despise loathe detest dislike
    funny humorous amusing comical laughable
    fat fleshy plump chubby
    stupid dumb dull unwise
    delicious savory delectable appetizing
    cut slice carve chop
    brave courageous fearless
    begin start initiate launch
    answer reply response
    television televisions TV TVs
    house home houses homes
    fire flame fires flames
    pig pork swine
    rabbit rabbits bunny bunnies
    car cars automobile automobiles vehicle vehicles
    water
"""
_MEANING = {word: number for number, line in enumerate(_MEANINGS.splitlines()) for word in line.split()}


def tick_similar(page: Page) -> Decision:
    """Select words similar to brave, chubby, depraved and click Submit."""
    wanted = {_MEANING[word] for word in page.read(r"similar to (.*) and click Submit")[1].split(", ")}
    for box in page.all("checkbox"):
        if ("checked" in box.states) != (_MEANING.get(box.name) in wanted):
            return page.click(box)
    return page.submit()
