"""Attacks on signed starts: changed, cut, old, sent twice, and wishes without a signature."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace

from dpo_driver.envs.gauntlet.audit.adversary import Adversary
from dpo_driver.envs.gauntlet.audit.outside import NAVIGATION
from dpo_driver.envs.gauntlet.audit.table import attack
from dpo_driver.envs.gauntlet.tokens import sign


def _encode(values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@attack("starts")
async def changed_starts(it: Adversary) -> int:
    """Change a signed start that one has, in its step, end, visit, key, seed and types; cut, double, empty, re-encode
    and swap its signature; sign it with keys that somebody might have left."""
    token = sign(replace(it.start, until=time.time() + 600), it.server.secret)
    other = sign(replace(it.start, visit="other", until=time.time() + 600), it.server.secret)
    body, _, seal = token.partition(".")
    values = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    wishes: tuple[dict[str, object], ...] = (
        {"step": 3}, {"step": 4}, {"until": 9e12}, {"visit": it.name + "x"}, {"key": "k"}, {"seed": 1}, {"steps": 1},
        {"difficulty": 1}, {"types": ["visible-text"]}, {"held_out": True}, {"skin": "b"},
    )  # fmt: skip
    tokens = [f"{_encode(values | wish)}.{seal}" for wish in wishes]
    tokens += [f"{body}.", body, f".{seal}", f"{body}.{seal[:-2]}", f"{body}.{seal}AAAA", f"{body}.{seal[::-1]}",
               f"{body}.{seal}.{seal}", f"{body}={seal}", f"{body}.{other.partition('.')[2]}", f"{body} .{seal}",
               f"{body}=.{seal}", f"{body}%00.{seal}", "e30.", "e30.e30", ".", "", "null",
               "%F0%9F%94%91.x"]  # fmt: skip
    left_over = (b"", b"secret", b"dpo-driver's gauntlet, as an environment", it.name.encode())
    tokens += [sign(replace(it.start, step=3, until=time.time() + 600), secret) for secret in left_over]
    for changed in tokens:
        reply = await it.outside.get(f"/start?token={changed}", NAVIGATION)
        if reply.status < 400:
            it.won(f"a changed start was taken: {changed[:60]}...")
    return len(tokens)


@attack("starts")
async def old_starts(it: Adversary) -> int:
    """Use starts whose time is over, by a second, a day, or that never had one."""
    for until in (time.time() - 1, time.time() - 86_400, 1.0, -1.0):
        token = sign(replace(it.start, visit=f"{it.name}-old", until=until), it.server.secret)
        if (await it.outside.get(f"/start?token={token}", NAVIGATION)).status < 400:
            it.won("a start was taken after its time")
    return 4


@attack("starts")
async def start_sent_twice(it: Adversary) -> int:
    """Open the visit's own start again, and starts of the same visit that lead elsewhere: the run goes on where it
    stands, and nothing that was counted is forgotten."""
    visit = it.visit
    assert visit._now is not None
    visit._now.wrong += 1
    wrong, began = visit._now.wrong, visit._now.began
    for start in (it.start, replace(it.start, step=3), replace(it.start, step=0), replace(it.start, difficulty=1)):
        await it.outside.get(f"/start?token={sign(start, it.server.secret)}", NAVIGATION)
    if it.visit is not visit or visit.step != 1 or (visit._now.wrong, visit._now.began) != (wrong, began):
        it.won("a start that was sent twice began the visit anew")
    visit._now.wrong -= 1
    return 4


@attack("starts")
async def wishes_without_a_signature(it: Adversary) -> int:
    """Ask for a start without a signature, and wish for a step, a key, this visit's name, types and a time: it leads to
    the START page of a visit of one's own, whose codes are others."""
    seed = it.scene.seed
    wishes = (
        f"seed={seed}", f"seed={seed}&step=3", f"seed={seed}&key=k&visit={it.name}", f"step=2&visit={it.name}",
        "seed=-1&step=3", "seed=%C2%B2", "difficulty=%C2%B2", "seed=1e3", "seed=" + "9" * 5000,
        f"seed={seed}&types=visible-text",
        f"seed={seed}&seed=1&step=1&steps=1&held_out=1&until=9e9", f"token=&visit={it.name}", f"SEED={seed}&STEP=3",
    )  # fmt: skip
    own = [it.visit.code(step) for step in (1, 2, 3)]
    for wish in wishes:
        reply = await it.outside.get(f"/start?{wish}", NAVIGATION)
        if reply.status >= 500:
            it.won(f"the server breaks at /start?{wish[:40]}")
        if reply.status != 303:
            continue
        name = it.visit_of(reply)
        line = it.site.line(name)
        it.forget(reply)
        if line is None or name == it.name or reply.header("Location") != "/" or line.visit.step != 0:
            it.won(f"/start?{wish} led to {reply.header('Location')} of {name}")
        elif any(line.visit.code(step) in own for step in (1, 2, 3)):
            it.won(f"/start?{wish} gave a visit with codes of this one")
    return len(wishes)
