"""Registered model versions: what they came from, who may be champion, what became of them.

versions.py keeps them in MLflow's registry, moves.py promotes and takes back by hand, differences.py compares two,
card.py writes a model card, hub.py pushes to folders laid out as the hub's, leftovers.py frees what nobody needs.
Must not import flywheel, report or cli.
"""

from dpo_driver.registry.versions import ALIASES, Alias, Registry, file_hashes, folder_hash

__all__ = ["ALIASES", "Alias", "Registry", "file_hashes", "folder_hash"]
