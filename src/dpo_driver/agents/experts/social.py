"""Experts for posts: press a button below posts of a user. Listed in agents/oracle.py, used by nobody else."""

from __future__ import annotations

import re

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.records import Element

_ICONS = ("reply", "retweet", "like", "share", "more")


def use_post(page: Page) -> Decision:
    """For the user @leo, click on the "Mute" button. (Some buttons are in the menu behind the dots.)"""
    user, wanted = page.read(r'For the user (@\S+), click on the "(.*)" button').groups()
    post = _posts(page, user)[0]
    for element in post:
        if element.role not in {"text", "label"} and element.name.lower().startswith(wanted.lower()):
            return page.click(element)
    return page.click(_icon(post, "more"))


def use_posts(page: Page) -> Decision:
    """Click the "Reply" button on all posts (or on 2 posts) by @dis and then click Submit."""
    wanted, number, user = page.read(r'Click the "(.*)" button on (all|\d+) posts? by (@\S+) and then').groups()
    posts = _posts(page, user)
    icons = [_icon(post, wanted.lower()) for post in posts]
    for icon in icons if number == "all" else icons[: int(number)]:
        if "active" not in icon.name.split():
            return page.click(icon)
    return page.submit()


def _posts(page: Page, user: str) -> list[list[Element]]:
    """The elements below each of the user's names, to the next name."""
    posts: list[list[Element]] = []
    mine = False
    for element in page.all():
        if re.fullmatch(r"@\S+", element.name):
            mine = element.name == user
            if mine:
                posts.append([])
        elif mine:
            posts[-1].append(element)
    if not posts:
        raise Lost(f"there is no post by {user}")
    return posts


def _icon(post: list[Element], name: str) -> Element:
    for element in post:
        words = element.name.split()
        if words and words[0] == name and words[0] in _ICONS and element.role in {"image", "clickable"}:
            return element
    raise Lost(f"the post has no icon {name}")
