"""The joins of the stores, from the list of areas: ``tools/gen_sync.py`` writes them with the rest."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIST = Path("genesis_flow", "stores", "areas.py")
JOINED = Path("genesis_flow", "stores", "joined.py")
TRAINING = Path("genesis_flow", "stores", "training.py")
SYNC_JOINED = Path("genesis_flow", "sync", "_generated", "joined.py")

# The parts of a declaration that name classes, and the stores that are made of them.
STORES = {
    "tracking": ("TrackingStore", "MLflow's tracking store on MongoDB"),
    "registry": ("ModelRegistryStore", "MLflow's model registry store on MongoDB"),
}


# What of the tracking store a training calls.
FIRST = "training"
GROWING = "Growing"


@dataclass(frozen=True, slots=True)
class Part:
    """A class of an area, and the module that defines it."""

    name: str
    module: str


def parts(root: Path) -> dict[str, list[Part]]:
    """What each store is joined from, in the order of the list of areas."""
    listed = ast.parse((root / LIST).read_text(encoding="utf-8"))
    modules = dict(_imported(listed))
    joined: dict[str, list[Part]] = {store: [] for store in (*STORES, FIRST)}
    for name in _names(_assigned(listed, "AREAS")):
        module, _ = modules[name]
        declaration = ast.parse(
            (root / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        )
        origins = dict(_imported(declaration))
        call = _assigned(declaration, "AREA")
        assert isinstance(call, ast.Call), f"{module}: AREA is no declaration"
        for keyword in call.keywords:
            if keyword.arg in joined:
                joined[keyword.arg] += [Part(each, origins[each][0]) for each in _names(keyword.value)]
    return joined


def asynchronous(root: Path) -> str:
    joined = parts(root)
    imports = [f"from {part.module} import {part.name}" for store in STORES for part in joined[store]]
    classes = [
        _class(f"Async{name}", [part.name for part in joined[store]], f"{meaning}, awaitable.", store)
        for store, (name, meaning) in STORES.items()
    ]
    return "\n".join(imports) + "\n\n\n" + "\n\n".join(classes)


def training(root: Path) -> str:
    """What of the tracking store a training calls; it becomes the whole one when more is asked for."""
    first = parts(root)[FIRST]
    imports = [f"from {part.module} import {part.name}" for part in first]
    imports.append(f"from genesis_flow.stores.growing import {GROWING}")
    bases = [GROWING, *(part.name for part in first)]
    doc = f"{STORES['tracking'][1]}, awaitable: at first what a training calls."
    return "\n".join(imports) + "\n\n\n" + _class("AsyncTrainingStore", bases, doc, "tracking")


def blocking(root: Path, twins: dict[str, str]) -> str:
    """``twins`` has the generated module of each area class."""
    joined = parts(root)
    imports, classes = [], []
    for store, (name, meaning) in STORES.items():
        present = [part.name for part in joined[store] if part.name in twins]
        imports += [f"from {twins[each]} import Sync{each}" for each in present]
        classes.append(_class(f"Sync{name}", [f"Sync{each}" for each in present], f"{meaning}, blocking."))
    return "\n".join(imports) + "\n\n\n" + "\n\n".join(classes)


def _class(name: str, bases: list[str], doc: str, store: str = "") -> str:
    named = f'\n    store = "{store}"\n' if store else ""
    return f'class {name}({", ".join(bases)}):\n    """{doc}"""\n{named}'


def _imported(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, (node.module or "", alias.name)


def _assigned(tree: ast.Module, name: str) -> ast.expr:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return node.value
    raise ValueError(f"{name} is not assigned")


def _names(value: ast.expr) -> list[str]:
    assert isinstance(value, ast.Tuple), f"{ast.unparse(value)} is no tuple of names"
    return [ast.unparse(each) for each in value.elts]
