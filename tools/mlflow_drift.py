"""Say what another MLflow changes for us, in seconds and without installing it.

    python tools/mlflow_drift.py                        the MLflow that is installed
    python tools/mlflow_drift.py mlflow-3.19.0.whl      a wheel, or a folder that holds the package
    python tools/mlflow_drift.py --version 3.19.0       a version of the package index
    python tools/mlflow_drift.py --newest               the newest one there
    python tools/mlflow_drift.py --newest --record      keep this one as what others are compared with

It looks at the names that we import, the functions that hooks replace, the arguments of those that are
functions, the groups of entry points and the environment variables that we rely on, the methods of MLflow's
stores, the revisions of its databases and the routes of its server. It compares with
tools/mlflow_recorded.json, or with what `--against` names.

Exit code 0: nothing differs. 1: something has to be read. 2: something of ours would fail.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.mlflow_tree import MlflowTree, public_methods, signature

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tools" / "mlflow_recorded.json"
OURS = ("genesis_flow",)

# Whose methods MLflow's server and clients call.
STORES = {
    "tracking": ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore"),
    "registry": ("mlflow.store.model_registry.sqlalchemy_store", "SqlAlchemyStore"),
    "workspaces": ("mlflow.store.workspace.abstract_store", "AbstractStore"),
    "jobs": ("mlflow.store.jobs.abstract_store", "AbstractJobStore"),
    "artifacts": ("mlflow.store.artifact.artifact_repo", "ArtifactRepository"),
}
_REVISIONS = re.compile(r"^mlflow/(store/db_migrations|server/auth/db/migrations)/versions/\w+\.py$")
_REVISION = re.compile(r"^revision\s*(?::\s*\w+\s*)?=\s*[\"'](\w+)", re.MULTILINE)
_ROUTED = re.compile(r"^mlflow/(protos/\w+_pb2|server/(\w+/)?\w+)\.py$")
_ROUTE = re.compile(r"""["'/\x1a]?(/(?:mlflow|mlflow-artifacts)/[\w\-/{}<>:.]+)""")
# Where MLflow looks for entry points, and where it reads its environment.
_LOOKING = ("mlflow/genai/", "mlflow/tracking/", "mlflow/store/", "mlflow/server/", "mlflow/utils/plugins.py")
_ASKING = ("mlflow/environment_variables.py", "mlflow/server/__init__.py", "mlflow/server/constants.py")
_VARIABLE = re.compile(r"\b_?MLFLOW_[A-Z_]{3,}\b")
_SINCE = re.compile(r"# since MLflow (\d+\.\d+)")
_DECORATED = re.compile(r"""@\w*router\.(?:get|post|put|patch|delete)\(\s*["']([^"']+)""")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that differs."""

    kind: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name} {self.what}"


@dataclass(frozen=True, slots=True)
class Import:
    """A name that a file of ours takes from MLflow."""

    module: str
    name: str | None
    place: str
    since: str | None = None
    """The version from which on it is imported, as a comment `# since MLflow 3.18` behind the import says."""

    def resolves(self, tree: MlflowTree) -> bool:
        if self.since is not None and _numbers(tree.version) < _numbers(self.since):
            return True
        if self.name is None:
            return tree.path_of(self.module) is not None
        return tree.defines(self.module, self.name)

    @property
    def shown(self) -> str:
        return self.module if self.name is None else f"{self.module}.{self.name}"


def imports_of(text: str, place: str) -> Iterator[list[list[Import]]]:
    """What a file imports from MLflow, as alternatives: one of them has to resolve as a whole.

    What only a type checker imports breaks nothing where it is gone.
    """
    tree, lines = ast.parse(text, filename=place), text.splitlines()
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            guarded.update(inner for statement in node.body for inner in ast.walk(statement))
        if isinstance(node, ast.Try) and any(_is_import_error(handler.type) for handler in node.handlers):
            ways = [node.body, *(handler.body for handler in node.handlers if _is_import_error(handler.type))]
            guarded.update(inner for way in ways for statement in way for inner in ast.walk(statement))
            yield [
                [
                    found
                    for statement in way
                    for inner in ast.walk(statement)
                    for found in _taken(inner, place, lines)
                ]
                for way in ways
            ]
    for node in ast.walk(tree):
        if node not in guarded and (taken := list(_taken(node, place, lines))):
            yield [taken]


def _is_import_error(caught: ast.expr | None) -> bool:
    return caught is not None and any(
        isinstance(part, ast.Name) and part.id in ("ImportError", "ModuleNotFoundError")
        for part in ast.walk(caught)
    )


def _taken(node: ast.AST, place: str, lines: list[str]) -> Iterator[Import]:
    if isinstance(node, ast.ImportFrom) and not node.level and _is_mlflow(node.module or ""):
        since = _SINCE.search(lines[node.lineno - 1])
        for alias in node.names:
            yield Import(node.module or "", alias.name, f"{place}:{node.lineno}", since and since[1])
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if _is_mlflow(alias.name):
                yield Import(alias.name, None, f"{place}:{node.lineno}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def _is_mlflow(module: str) -> bool:
    return module.split(".", 1)[0] == "mlflow"


def our_imports(root: Path = ROOT) -> list[list[list[Import]]]:
    return [
        group
        for folder in OURS
        for path in sorted((root / folder).rglob("*.py"))
        for group in imports_of(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
    ]


def broken_imports(groups: list[list[list[Import]]], tree: MlflowTree) -> Iterator[Finding]:
    for ways in groups:
        gone = [[each for each in way if not each.resolves(tree)] for way in ways]
        if all(gone):
            for each in gone[0]:
                yield Finding("import is gone", each.shown, f"({each.place})")


def broken_groups(tree: MlflowTree, root: Path = ROOT) -> Iterator[Finding]:
    """Groups of entry points in which we stand and where MLflow looks no more."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {group for group in project["entry-points"] if _is_mlflow(group)}
    for path in tree.names:
        if path.startswith(_LOOKING) and wanted:
            text = tree.read(path)
            wanted -= {group for group in wanted if f'"{group}"' in text}
    for group in sorted(wanted):
        yield Finding("entry points are not looked for", group, "(pyproject.toml)")


def our_hooks() -> list[Any]:
    """The rows of the tables in genesis_flow/plugins/hooks.py and model_hooks.py."""
    # Imported here: it takes MLflow, the installed one, which is only told of by its names.
    from genesis_flow.plugins import hooks, model_hooks

    held = [*vars(hooks).values(), *vars(model_hooks).values()]
    tables = [table for table in held if isinstance(table, tuple)]
    return [row for table in tables for row in table if isinstance(row, hooks.Hook)]


def broken_hooks(rows: list[Any], tree: MlflowTree) -> Iterator[Finding]:
    """Replacements whose place is not what they were written for: their feature would be off."""
    for row in rows:
        if row.may_lack and tree.path_of(row.module) is None:
            continue
        found = _parameters(tree, row.module, row.name)
        if found is None:
            what = "is gone"
        elif found != row.parameters:
            what = (
                f"takes {', '.join(found) or 'nothing'} instead of {', '.join(row.parameters) or 'nothing'}"
            )
        else:
            continue
        yield Finding("hook does not fit", f"{row.module}.{row.name}", f"{what}, so {row.feature} are off")


def _parameters(tree: MlflowTree, module: str, name: str) -> tuple[str, ...] | None:
    """Those of a function, of a method (`Class.method`), or of what makes a class."""
    first, _, method = name.partition(".")
    place = tree.find(module, first)
    node: ast.stmt | None = place[1] if place else None
    made = isinstance(node, ast.ClassDef) and not method
    if isinstance(node, ast.ClassDef):
        wanted = method or "__init__"
        node = next((each for each in node.body if getattr(each, "name", None) == wanted), None)
        if node is None and made:
            return ()  # it has that of another class
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    spec = node.args
    every = (*spec.posonlyargs, *spec.args, spec.vararg, *spec.kwonlyargs, spec.kwarg)
    return tuple(each.arg for each in every if each is not None)[made:]


def our_variables(root: Path = ROOT) -> set[str]:
    """MLflow's environment variables that our files name."""
    texts = (path.read_text(encoding="utf-8") for folder in OURS for path in (root / folder).rglob("*.py"))
    return {name for text in texts for name in _VARIABLE.findall(text)}


def survey(tree: MlflowTree, groups: list[list[list[Import]]]) -> dict[str, Any]:
    """What we know and use of a version, in a form that can be kept and compared."""
    asking = [tree.read(path) for path in _ASKING if path in tree.names]
    functions = {}
    for each in (found for ways in groups for way in ways for found in way):
        found = tree.find(each.module, each.name) if each.name else None
        if found is not None and isinstance(found[1], ast.FunctionDef | ast.AsyncFunctionDef):
            functions[each.shown] = signature(found[1])
    return {
        "version": tree.version,
        "functions": dict(sorted(functions.items())),
        "variables": sorted(name for name in our_variables() if any(name in text for text in asking)),
        "stores": {
            name: dict(sorted(public_methods(tree, *where).items())) for name, where in STORES.items()
        },
        "revisions": sorted(
            {
                found
                for path in tree.names
                if _REVISIONS.match(path)
                for found in _REVISION.findall(tree.read(path))
            }
        ),
        "routes": sorted(
            {route for path in tree.names if _ROUTED.match(path) for route in _routes(tree.read(path))}
        ),
    }


def _routes(text: str) -> Iterator[str]:
    yield from (found.rstrip("./") for found in _ROUTE.findall(text))
    yield from _DECORATED.findall(text)


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Finding]:
    yield from _changed("function we call", before["functions"], after["functions"], gone=False)
    for store in STORES:
        yield from _changed(f"method of {store}", before["stores"][store], after["stores"][store])
    kinds = {"database revision": "revisions", "route": "routes", "environment variable": "variables"}
    for kind, key in kinds.items():
        yield from (Finding(kind, each, "is new") for each in after[key] if each not in before[key])
        yield from (Finding(kind, each, "is gone") for each in before[key] if each not in after[key])


def _changed(
    kind: str, before: dict[str, str], after: dict[str, str], *, gone: bool = True
) -> Iterator[Finding]:
    for name, now in after.items():
        if name not in before:
            yield Finding(kind, name, f"is new: {now}")
        elif before[name] != now:
            yield Finding(kind, name, f"takes {now} instead of {before[name]}")
    if gone:  # else its import is gone, which is said already
        yield from (Finding(kind, name, "is gone") for name in before if name not in after)


def download(version: str | None, folder: Path) -> Path:
    """The whole wheel of a version, or of the newest one."""
    wanted = "mlflow" if version is None else f"mlflow=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{wanted} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("mlflow-*.whl"))


def installed() -> Path:
    from importlib.util import find_spec

    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise SystemExit("No MLflow is installed; name a wheel.")
    return Path(spec.origin).parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _options().parse_args(arguments)
    groups = our_imports()
    with tempfile.TemporaryDirectory() as folder:
        if options.newest or options.version:
            place = download(options.version, Path(folder))
        else:
            place = options.place or installed()
        tree = MlflowTree(place)
        now = survey(tree, groups)
        broken = [
            *broken_imports(groups, tree),
            *broken_groups(tree),
            *broken_hooks(our_hooks(), tree),
        ]
    if options.record:
        RECORDED.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        print(f"MLflow {now['version']} is what the next ones are compared with.")
        return 0
    before = (
        survey(MlflowTree(options.against), groups) if options.against else json.loads(RECORDED.read_text())
    )
    found = list(differences(before, now))
    _tell(before["version"], now["version"], broken, found, as_json=options.json)
    return 2 if broken else int(bool(found))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="tools/mlflow_drift.py",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "place", nargs="?", type=Path, help="a wheel, or a folder that holds the package mlflow"
    )
    which.add_argument("--version", help="a version of the package index")
    which.add_argument("--newest", action="store_true", help="the newest version of the package index")
    parser.add_argument(
        "--record", action="store_true", help="keep this one as what others are compared with"
    )
    parser.add_argument("--against", type=Path, help="a wheel or folder to compare with")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _tell(before: str, now: str, broken: list[Finding], found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        report = {
            "version": now,
            "compared_with": before,
            "broken": [asdict(each) for each in broken],
            "changed": [asdict(each) for each in found],
        }
        print(json.dumps(report, indent=2))
        return
    for each in (*broken, *found):
        print(each)
    print(f"MLflow {now}, compared with {before}: {len(broken)} broken, {len(found)} other differences.")


if __name__ == "__main__":
    sys.exit(main())
