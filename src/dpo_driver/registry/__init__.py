"""Registered model versions: what they came from, who may be champion, what became of them.

versions.py keeps them in MLflow's registry, with files.py for their content and standing.py for aliases and history;
moves.py promotes and takes back by hand, differences.py compares two, card.py writes a model card, hub.py pushes to
folders laid out as the hub's, leftovers.py frees what nobody needs. Must not import flywheel, report or cli.
"""

from dpo_driver.registry.files import file_hashes, folder_hash
from dpo_driver.registry.standing import ALIASES, Alias, Move
from dpo_driver.registry.versions import Registry

__all__ = ["ALIASES", "Alias", "Move", "Registry", "file_hashes", "folder_hash"]
