"""Write docs/schema: one page for each collection, made from the document models.

    python tools/gen_schema_docs.py            write what changed
    python tools/gen_schema_docs.py --check    write nothing; exit 1 and name the pages that differ

A field says what it is in ``Field(description=...)``, an index in ``Index(serves=...)``, a collection in the
docstring of its model; ``Settings.refers`` names the collections that fields point to. What is missing is an
error. Which calls use a collection is read from the code.
"""

import argparse
import ast
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bson.timestamp import Timestamp
from pydantic import BaseModel

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.migrate.schema_check import VIEWS
from genesis_flow.stores.areas import DECLARED

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gen_sync import AREAS, OPERATIONS

ROOT = Path(__file__).resolve().parent.parent
PAGES = Path("docs", "schema")
PACKAGE = Path("genesis_flow")
# Where the code that uses collections is.
FOLDERS = (AREAS, "search")
NOTICE = "<!-- Made by tools/gen_schema_docs.py from the documents of the areas. Change those instead. -->"

_TYPES = {
    int: "integer",
    str: "text",
    float: "double",
    bool: "boolean",
    bytes: "binary",
    datetime: "date",
    Timestamp: "timestamp",
    Any: "any",
}


class Undocumented(Exception):
    """A sentence that a model lacks."""


@dataclass(frozen=True)
class Collection:
    model: type[Declared]

    @property
    def settings(self) -> Any:
        return self.model.Settings

    @property
    def name(self) -> str:
        return str(self.settings.name)

    @property
    def meaning(self) -> str:
        return _plain(self.model.__doc__, f"the class {self.model.__name__} has no docstring")

    @property
    def source(self) -> str:
        return self.model.__module__.replace(".", "/") + ".py"

    @property
    def refers(self) -> dict[str, str]:
        return getattr(self.settings, "refers", {})

    @property
    def indexes(self) -> list[Index]:
        for index in self.settings.indexes:
            if not isinstance(index, Index):
                name = index.document["name"]
                raise Undocumented(f"{self.model.__name__}: the index {name} is no Index(..., serves=...)")
        return list(self.settings.indexes)


def generate(root: Path = ROOT) -> dict[Path, str]:
    """The text of every page, by path below ``root``."""
    collections = [Collection(model) for model in DECLARED]
    names = {each.name for each in collections}
    for each in collections:
        fields = {path for path, _, _, _ in _fields(each.model)}
        for field, target in each.refers.items():
            if field not in fields or target not in names:
                raise Undocumented(f"{each.model.__name__}: Settings.refers says {field}: {target}")
    users = Code(root).users()
    pages = {PAGES / f"{each.name}.md": _page(each, collections, users) for each in collections}
    return {PAGES / "README.md": _overview(collections), **pages}


def _plain(text: str | None, problem: str) -> str:
    if not text:
        raise Undocumented(problem)
    return " ".join(text.replace("``", "`").split())


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, bool, str]]:
    """Path, type, whether it is always there, and meaning of each field, nested ones after their parent."""
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        kind = _type_of(field.annotation)
        meaning = _plain(field.description, f"{model.__name__}.{name} has no description")
        yield path, kind, field.is_required(), meaning
        for nested in _models_in(field.annotation):
            yield from _fields(nested, f"{path}.")


def _members(annotation: Any) -> list[Any]:
    return [each for each in typing.get_args(annotation) if each is not types.NoneType]


def _type_of(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type_of(member) for member in _members(annotation))
    if origin is dict:
        return f"map of {_type_of(typing.get_args(annotation)[1])}"
    if origin is list:
        return f"array of {_type_of(typing.get_args(annotation)[0])}"
    if origin is tuple:
        return "[" + ", ".join(_type_of(member) for member in typing.get_args(annotation)) + "]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return _TYPES[annotation]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in typing.get_args(annotation):
        yield from _models_in(member)


def _page(collection: Collection, collections: list[Collection], users: dict[str, list[str]]) -> str:
    lines = [NOTICE, "", f"# {collection.name}", "", collection.meaning, ""]
    lines += [
        f"Declared as `{collection.model.__name__}` in {_file(collection.source)}.",
        "",
        "## Fields",
        "",
    ]
    lines += ["| field | type | | meaning |", "|---|---|---|---|"]
    for path, kind, required, meaning in _fields(collection.model):
        target = collection.refers.get(path)
        link = f" → [{target}]({target}.md)" if target else ""
        presence = "" if required else "may be absent"
        lines.append(f"| `{path}` | {_cell(kind)} | {presence} | {_cell(meaning)}{link} |")
    lines += ["", "## Indexes", "", "| index | keys | options | serves |", "|---|---|---|---|"]
    lines.append("| `_id_` | `_id: 1` | unique | Reads and writes by id, and by a range of ids. |")
    lines += [_index(index) for index in collection.indexes]
    pointing = [
        f"- `{field}` of [{other.name}]({other.name}.md)"
        for other in collections
        for field, target in other.refers.items()
        if target == collection.name
    ]
    if pointing:
        lines += ["", "## Pointed to by", "", *pointing]
    lines += ["", "## Used by", "", _users_line(collection, users)]
    return "\n".join(lines) + "\n"


def _users_line(collection: Collection, users: dict[str, list[str]]) -> str:
    """The calls that use a collection; where only commands do, the modules."""
    model = collection.model.__name__
    if calls := users.get(model):
        return f"{', '.join(f'`{call}`' for call in calls)}."
    modules = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        if "documents" not in path.parts and model in path.read_text(encoding="utf-8")
    ]
    if not modules:
        raise Undocumented(f"nothing uses {model}")
    return f"{', '.join(map(_file, modules))}."


def _index(index: Index) -> str:
    document = index.document
    keys = ", ".join(f"{field}: {order}" for field, order in document["key"].items())
    options = [
        key if value is True else f"{key} `{value}`"
        for key, value in document.items()
        if key not in ("name", "key")
    ]
    serves = _plain(index.serves, f"the index {document['name']} has an empty serves")
    return f"| `{document['name']}` | `{keys}` | {', '.join(options)} | {_cell(serves)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _file(path: str) -> str:
    return f"[{path}](../../{path})"


@dataclass
class Function:
    """What a function or class of the code mentions."""

    names: set[str]
    is_operation: bool


class Code:
    """Which operations of the stores reach which collection, found by following names.

    A name is looked for in its module, then where that imports it from; ``self.name`` also in other areas.
    """

    def __init__(self, root: Path) -> None:
        self.functions: dict[str, dict[str, Function]] = {}
        self.imports: dict[str, dict[str, str]] = {}
        self.models = {model.__name__ for model in DECLARED}
        for package in FOLDERS:
            for path in sorted((root / PACKAGE / package).rglob("*.py")):
                module = ".".join(path.relative_to(root).with_suffix("").parts)
                self._read(module, ast.parse(path.read_text(encoding="utf-8")))

    def _read(self, module: str, tree: ast.Module) -> None:
        functions = self.functions.setdefault(module, {})
        self.imports[module] = {
            alias.asname or alias.name: node.module or ""
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                functions[node.name] = Function(_names(node), False)
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            for function in inner:
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    marks = {name for mark in function.decorator_list for name in _names(mark)}
                    functions[function.name] = Function(_names(function), not marks.isdisjoint(OPERATIONS))
                elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    for target in targets:
                        functions[getattr(target, "id", "")] = Function(_names(node.value), False)

    def users(self) -> dict[str, list[str]]:
        """The operations by the name of the model whose collection they use."""
        users: dict[str, set[str]] = {}
        for module, functions in self.functions.items():
            for name, function in functions.items():
                if function.is_operation:
                    for model in self._reached(module, name):
                        users.setdefault(model, set()).add(name)
        return {model: sorted(names) for model, names in users.items()}

    def _reached(self, module: str, name: str) -> set[str]:
        seen, waiting, models = set(), [(module, name)], set()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            module, name = place
            for mentioned in self.functions[module][name].names:
                own = mentioned.removeprefix("self.")
                if own in self.models:
                    models.add(own)
                elif own in self.functions[module]:
                    waiting.append((module, own))
                elif own in self.functions.get(self.imports[module].get(own, ""), {}):
                    waiting.append((self.imports[module][own], own))
                elif mentioned != own:
                    waiting += [(other, own) for other, known in self.functions.items() if own in known]
        return models


def _names(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {
        f"self.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def _overview(collections: list[Collection]) -> str:
    lines = [NOTICE, "", "# Schema reference", ""]
    lines += [
        "One page for each collection. All names take the prefix of the URI: `#team` makes `runs` into",
        "`team_runs`. Times are milliseconds since 1970 in UTC unless a field says otherwise. Keys in maps",
        "are escaped: `%` is `%25`, `.` is `%2E`, `$` is `%24`. [Architecture](../architecture.md) says why",
        "it is so; [the example queries](../operations.md#queries-by-hand) can be typed as they are.",
        "",
        "| collection | a document is | indexes |",
        "|---|---|---|",
    ]
    for each in collections:
        names = ", ".join(f"`{index.document['name']}`" for index in each.indexes) or "`_id` only"
        lines.append(f"| [{each.name}]({each.name}.md) | {_cell(each.meaning)} | {names} |")
    views = " and ".join(f"`{view}`" for view in VIEWS)
    lines += [
        "",
        f"{views} are read-only views over `runs` for queries by hand: `{{run_uuid, key, value}}`, with",
        "plain keys.",
        "`schema_migrations`, `schema_lock` and `schema_history` are the",
        "[record of the schema's steps](../operations-migrations.md#what-is-kept-in-the-database).",
        "",
        "## Relations",
        "",
        "MongoDB does not enforce them: the stores do.",
        "",
        "```mermaid",
        "erDiagram",
        *(
            f"    {target} ||--o{{ {each.name} : {field}"
            for each in collections
            for field, target in each.refers.items()
        ),
        "```",
    ]
    return "\n".join(lines) + "\n"


def compare(root: Path, expected: dict[Path, str]) -> dict[Path, str]:
    """What is wrong with the pages, by path below ``root``."""
    problems = {}
    for path, text in expected.items():
        there = root / path
        if not there.is_file():
            problems[path] = "missing"
        elif there.read_text(encoding="utf-8") != text:
            problems[path] = "not up to date"
    for there in sorted((root / PAGES).glob("*.md")):
        if there.relative_to(root) not in expected:
            problems[there.relative_to(root)] = "of no collection"
    return problems


def write(root: Path, expected: dict[Path, str], problems: dict[Path, str]) -> None:
    (root / PAGES).mkdir(parents=True, exist_ok=True)
    for path in problems:
        if path in expected:
            (root / path).write_text(expected[path], encoding="utf-8")
        else:
            (root / path).unlink()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write docs/schema from the document models.")
    parser.add_argument("--check", action="store_true", help="only report pages that are not up to date")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        expected = generate()
    except Undocumented as error:
        print(error, file=sys.stderr)
        return 1
    problems = compare(options.root, expected)
    if not options.check:
        write(options.root, expected, problems)
    for path, problem in problems.items():
        print(f"{path.as_posix()}: {problem if options.check else 'written'}")
    if options.check and problems:
        print("Run `python tools/gen_schema_docs.py` and commit what it writes.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
