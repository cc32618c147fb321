"""Names -> things, by literal tables and lazy import: ``load("environment", "miniwob")`` gives the class.

A new variant is a new file and one line here; a package of someone else's adds to a table by an entry point in the
group ``dpo_driver.<kind>``. An unknown name lists the known ones. Nothing is imported before it is asked for. Called by
flywheel, cli and the conformance tests. Must not import any other layer (the tables hold names, not modules).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any

from dpo_driver.core.errors import ConfigError, UnknownNameError

# kind -> name -> "module:attribute" or "module:Class.attribute"
TABLES: dict[str, dict[str, str]] = {
    "environment": {
        "browsergym": "dpo_driver.envs.browsergym:BrowserGymEnvironment",
        "gauntlet": "dpo_driver.envs.gauntlet.environment:GauntletEnvironment",
        "miniwob": "dpo_driver.envs.miniwob.environment:MiniwobEnvironment",
        "toy": "dpo_driver.envs.toy:ToyEnvironment",
        "website": "dpo_driver.envs.website.environment:WebsiteEnvironment",
    },
    "environments": {  # opens what environments of a kind share and gives the factory of single ones
        "browsergym": "dpo_driver.envs.browsergym:BrowserGymEnvironment.source",
        "gauntlet": "dpo_driver.envs.gauntlet.environment:GauntletEnvironment.source",
        "miniwob": "dpo_driver.envs.miniwob.environment:MiniwobEnvironment.source",
        "miniwob-batched": "dpo_driver.envs.miniwob.batched:BatchedEnvironment.source",
        "toy": "dpo_driver.envs.toy:ToyEnvironment.source",
    },
    "make_task": {  # (family, seed, split) -> Task
        "browsergym": "dpo_driver.envs.browsergym:make_task",
        "gauntlet": "dpo_driver.envs.gauntlet.tasks:make_task",
        "miniwob": "dpo_driver.envs.miniwob.tasks:make_task",
        "toy": "dpo_driver.envs.toy:make_task",
    },
    "tasks": {  # an environment's task families: a mapping from name to its description
        "browsergym": "dpo_driver.envs.browsergym:TASKS",
        "gauntlet": "dpo_driver.envs.gauntlet.tasks:FAMILIES",
        "miniwob": "dpo_driver.envs.miniwob.tasks:TASKS",
        "toy": "dpo_driver.envs.toy:FAMILIES",
    },
    "experts": {  # scripted experts by task family: what the oracle plays with
        "gauntlet": "dpo_driver.agents.solver.agent:EXPERTS",
        "miniwob": "dpo_driver.agents.oracle:ORACLES",
        "miniwob-batched": "dpo_driver.agents.oracle:ORACLES",
    },
    "agent": {
        "random": "dpo_driver.agents.random:RandomAgent",
        "null": "dpo_driver.agents.cheats:NullAgent",
        "claims": "dpo_driver.agents.cheats:ClaimsAgent",
        "reward-reader": "dpo_driver.agents.cheats:RewardReaderAgent",
        "memory": "dpo_driver.agents.memory:MemoryAgent",
        "oracle": "dpo_driver.agents.oracle:OracleAgent",
        "policy": "dpo_driver.agents.llm:PolicyAgent",
        "solver": "dpo_driver.agents.solver.agent:SolverAgent",
    },
    "policy": {
        "endpoint": "dpo_driver.policies.endpoint:EndpointPolicy",
        "hf": "dpo_driver.policies.hf:HFPolicy",
    },
}

# The same for what lies in a place: a folder of tasks, "website:examples/shop/tasks", or a gauntlet that somebody else
# serves, "gauntlet:http://127.0.0.1:9000". Behind a name stands a function of the place.
PLACED: dict[str, dict[str, str]] = {
    "environments": {
        "gauntlet": "dpo_driver.envs.gauntlet.environment:elsewhere",
        "website": "dpo_driver.envs.website.environment:environments",
    },
    "make_task": {
        "gauntlet": "dpo_driver.envs.gauntlet.tasks:make_runs",
        "website": "dpo_driver.envs.website.site:make_task",
    },
    "tasks": {
        "gauntlet": "dpo_driver.envs.gauntlet.tasks:runs",
        "website": "dpo_driver.envs.website.site:families",
    },
    "experts": {"website": "dpo_driver.envs.website.site:experts"},
    "digest": {"website": "dpo_driver.envs.website.site:digest"},  # of all that the place says
}


def names(kind: str) -> tuple[str, ...]:
    """All names of a kind, ours and plugged in, sorted."""
    return tuple(sorted({*TABLES[kind], *PLACED.get(kind, ()), *_entry_points(kind)}))


def load(kind: str, name: str, *, where: str | None = None) -> Any:
    """The class, function or mapping behind a name.

    Args:
        kind: a key of ``TABLES``.
        name: what a configuration says; ``website:FOLDER``, ``gauntlet:ADDRESS`` for what lies in a place.
        where: the key or file that said it, for the error.

    Raises:
        UnknownNameError: no table lists the name.
        ConfigError: a plugged-in package is listed but cannot be imported; a name needs its place.
    """
    family, _, place = name.partition(":")
    table = TABLES.get(kind, {})
    if family in PLACED.get(kind, ()) and (place or family not in table):
        if not place:
            raise ConfigError(f"{family} needs the folder of its tasks", where=where,
                              remedy=f"set env.folder, or write {family}:FOLDER")  # fmt: skip
        return _import(PLACED[kind][family])(place)
    # What is the same in every place stands under the name alone.
    anywhere = place and any(family in placed for placed in PLACED.values())
    target = table.get(family if anywhere else name)
    if target is not None:
        return _import(target)
    plugged = _entry_points(kind).get(name)
    if plugged is None:
        raise UnknownNameError(kind, name, names(kind), where=where)
    try:
        return plugged.load()
    except (ImportError, AttributeError) as error:
        remedy = "mend or uninstall the package that provides it"
        raise ConfigError(
            f"the plug-in {name!r} ({plugged.value}) cannot be loaded: {error}", where=where, remedy=remedy
        ) from error


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return attrgetter(attribute)(import_module(module))


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"dpo_driver.{kind}")}
