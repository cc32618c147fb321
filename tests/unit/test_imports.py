"""The architecture, held by tests: imports point down only, no cycle, and heavy libraries load only when needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "dpo_driver"
# Equal numbers are siblings: they meet through core.protocols. The command line shows the other faces, so it is above.
LAYERS = {
    "core": 0,
    "browser": 1, "policies": 1, "web": 1,
    "envs": 2, "agents": 2,
    "rollout": 3, "preferences": 3, "algorithms": 3, "tracking": 3,
    "training": 4, "registry": 4,  # the registry is kept in tracking's MLflow
    "flywheel": 5,
    "report": 6, "label": 6, "serve": 6, "cloud": 6, "dashboard": 6, "compat": 6,
    "cli": 7,
    "testing": 8, "__main__": 8, "": 8,
}  # fmt: skip
UNUSED_AS_TYPE_NAMES = ("Manager", "Handler", "Service", "Helper", "Utils", "Episode", "Trace")
HEAVY = ("torch", "transformers", "playwright", "mlflow", "gymnasium", "numpy")
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("dpo_driver", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Modules of ours that a file imports. Imports for type checkers only are no dependency at run time, yet they are
    one of design: they count, except when looking for cycles."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if (node.module or "").partition(".")[0] == "dpo_driver":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "dpo_driver")


def folder(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        own = folder(module_name(path))
        for target in imported(path):
            other = folder(target)
            if other in LAYERS and own != other and LAYERS[own] <= LAYERS[other]:
                wrong.append(
                    f"{path.relative_to(PACKAGE)} (layer {LAYERS[own]}) imports {target} (layer {LAYERS[other]})"
                )
    assert not wrong, "\n".join(wrong)


def test_every_folder_has_a_layer() -> None:
    found = {folder(module_name(path)) for path in FILES} - {""}
    assert found <= set(LAYERS), f"give these a layer: {found - set(LAYERS)}"


def test_no_import_cycle() -> None:
    modules = {module_name(path): path for path in FILES}

    def resolve(target: str) -> str:
        return target if target in modules else target.rpartition(".")[0]

    graph = {name: {resolve(t) for t in imported(path, top_level_only=True)} - {name} for name, path in modules.items()}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " -> ".join((*trail, name))
        if name not in state and name in graph:
            state[name] = 1
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            state[name] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_says_what_it_is_and_keeps_to_the_terms(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, (
        "a module docstring says what it is, who calls it, what it must not import"
    )
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if name.endswith(UNUSED_AS_TYPE_NAMES)]


def loaded_after(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running ``code``."""
    program = f"import sys\n{code}\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import dpo_driver, dpo_driver.core.config, dpo_driver.core.plugins") == set()


RUN_MAIN = """
sys.argv = ["dpo-driver", *{arguments!r}]
from dpo_driver.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["version"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_after(RUN_MAIN.format(arguments=arguments)) == set()


def test_rollouts_and_reports_work_without_torch() -> None:
    """The base install has no torch: only what trains or decodes may import it at its top."""
    needs_torch = ("policies.", "algorithms", "training", "serve.models", "testing", "__main__")
    free = [
        name for path in FILES
        if not (name := module_name(path)).removeprefix("dpo_driver.").startswith(needs_torch)
    ]  # fmt: skip
    program = "import sys; sys.modules['torch'] = None\nimport importlib\n" + "".join(
        f"importlib.import_module({n!r})\n" for n in free
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
