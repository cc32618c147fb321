"""Whether the peers are here to be tested against."""

from __future__ import annotations

from dpo_driver.envs.browsergym import PeersMissingError, peers_folder


def why_not() -> str:
    """What is missing; empty if nothing is."""
    try:
        peers_folder()
    except PeersMissingError as missing:
        return f"the peers' environment has not been made: run benchmarks/peers/setup ({missing.where})"
    return ""
