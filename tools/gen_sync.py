"""Write the blocking facade: one thin typed method for every operation of the async area classes.

    python tools/gen_sync.py            write what changed
    python tools/gen_sync.py --check    write nothing; exit 1 and name the files that are not up to date

An area is a class that derives from ``Area``; its operations are the methods that
``@operation``, ``@mutation``, ``@long_mutation`` or ``@heartbeat`` decorates.
"""

import argparse
import ast
import builtins
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import gen_joins

ROOT = Path(__file__).resolve().parent.parent

# Where areas are looked for, and where their blocking twins go: x/areas/runs/search.py > runs_search.py.
PACKAGE = "genesis_flow"
AREAS = "areas"
GENERATED = "sync/_generated"

AREA = "Area"
# The decorators that make a method an operation, and what runs such a method in the facade.
OPERATIONS = {"operation": "_run", "mutation": "_run", "heartbeat": "_run", "long_mutation": "_run_long"}
# What makes an operation one that callers run themselves.
DIRECT = {"direct": "_run_direct", "direct_joined": "_run_direct"}
# What every async store has; the facade has its own.
LIFE_CYCLE = ("open", "opened", "close")

_BUILTINS = frozenset(dir(builtins))
_HASH_LINE = re.compile(r"^# sha256 of the rest: ([0-9a-f]{16})\n", re.MULTILINE)


class GenerationError(Exception):
    """Something in an area file, or in a generated one, that a person has to put right."""


@dataclass(frozen=True)
class Source:
    """One parsed area file."""

    path: Path
    root: Path
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, path: Path, root: Path) -> "Source":
        text = path.read_text(encoding="utf-8")
        return cls(path, root, text, ast.parse(text, filename=str(path)))

    @property
    def name(self) -> str:
        """The path as shown to people, from the root of the repository."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to(self.root).with_suffix("").parts)

    def segment(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text, node) or ast.unparse(node)

    def error(self, node: ast.AST, problem: str) -> GenerationError:
        return GenerationError(f"{self.name}:{getattr(node, 'lineno', 1)}: {problem}")


def generate(root: Path) -> dict[Path, str]:
    """The text of every generated file, by path."""
    files = {}
    twins = {}
    base = root / PACKAGE / AREAS
    for path in sorted(base.rglob("*.py")):
        source = Source.read(path, root)
        areas = list(_areas(source))
        if areas:
            name = "_".join(path.relative_to(base).with_suffix("").parts)
            target = root / PACKAGE / GENERATED / f"{name}.py"
            if target in files:
                raise source.error(source.tree, f"two area files would become {target.name}; rename one.")
            files[target] = _module(source, areas, target)
            twins |= {area.name: f"{PACKAGE}.{GENERATED.replace('/', '.')}.{name}" for area, _ in areas}
    if (root / gen_joins.LIST).exists():
        files |= _joins(root, twins)
    return files


def _joins(root: Path, twins: dict[str, str]) -> dict[Path, str]:
    """The stores, joined from the areas: for asynchronous and for blocking callers."""
    source = gen_joins.LIST.as_posix()
    asynchronous, blocking = root / gen_joins.JOINED, root / gen_joins.SYNC_JOINED
    training = root / gen_joins.TRAINING
    return {
        asynchronous: _signed(source, _ruff(gen_joins.asynchronous(root), asynchronous, root)),
        training: _signed(source, _ruff(gen_joins.training(root), training, root)),
        blocking: _signed(source, _ruff(gen_joins.blocking(root, twins), blocking, root)),
    }


def _areas(source: Source) -> Iterator[tuple[ast.ClassDef, list[ast.AsyncFunctionDef]]]:
    """The area classes of a file with their operations."""
    known = {AREA}
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and known & {_last_name(base) for base in node.bases}:
            known.add(node.name)
            operations = list(_operations(source, node))
            if operations:
                yield node, operations


def _operations(source: Source, area: ast.ClassDef) -> Iterator[ast.AsyncFunctionDef]:
    for node in area.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorated = _runner(node) is not None
        where = f"{area.name}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            if decorated:
                raise source.error(node, f"{where} is an operation but not async; make it an async def.")
        elif decorated:
            _check_annotated(source, node, where)
            yield node
        elif not node.name.startswith("_") and node.name not in LIFE_CYCLE:
            raise source.error(
                node,
                f"{where} is public but neither @operation nor @mutation, so the blocking store would lack "
                "it; decorate it, or start its name with an underscore.",
            )


def _runner(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """The facade's method that runs ``function``, if that is an operation."""
    names = {_last_name(decorator) or "" for decorator in function.decorator_list}
    runner = next((OPERATIONS[name] for name in names if name in OPERATIONS), None)
    return next((DIRECT[name] for name in names if runner and name in DIRECT), runner)


def _check_annotated(source: Source, function: ast.AsyncFunctionDef, where: str) -> None:
    arguments = _arguments(function)
    if not function.args.posonlyargs + function.args.args:
        raise source.error(function, f"{where} takes no self; an operation is an ordinary method.")
    for argument in arguments:
        if argument.annotation is None:
            raise source.error(
                argument, f"the parameter {argument.arg} of {where} has no annotation; add one."
            )
    if function.returns is None:
        raise source.error(function, f"{where} has no return annotation; add one.")


def _arguments(function: ast.AsyncFunctionDef) -> list[ast.arg]:
    """Every parameter but self."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args][1:]
    extra = [argument for argument in (spec.vararg, spec.kwarg) if argument is not None]
    return [*positional, *spec.kwonlyargs, *extra]


def _last_name(node: ast.expr) -> str | None:
    """``operation`` for operation, operation(...) and module.operation; the base's name for Base[T]."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _module(
    source: Source, areas: list[tuple[ast.ClassDef, list[ast.AsyncFunctionDef]]], target: Path
) -> str:
    names = _Names(source)
    classes = []
    for area, operations in areas:
        body = "\n\n".join(_method(source, area, function, names) for function in operations)
        doc = _first_line(area)
        summary = f"    {doc}\n\n" if doc else ""
        classes.append(f"class Sync{area.name}(SyncFacade):\n{summary}{body}\n")
    parent, _, leaf = source.module.rpartition(".")
    lines = [
        "from __future__ import annotations",
        "from typing import TYPE_CHECKING",
        f"from {PACKAGE}.sync.base import SyncFacade",
        f"from {PACKAGE}.sync.later import later",
        *names.imports(names.at_runtime),
        "if TYPE_CHECKING:",
        f"    from {parent} import {leaf} as _area",
        *(f"    {line}" for line in names.imports(names.in_annotations - names.at_runtime)),
        "else:",
        f'    _area = later("{source.module}")',
    ]
    text = _ruff("\n".join(lines) + "\n\n\n" + "\n\n".join(classes), target, source.root)
    return _signed(source.name, text)


def _signed(source: str, text: str) -> str:
    """``text`` with a header that says where it comes from and gives an edit by hand away."""
    header = (
        f"# Generated by tools/gen_sync.py from {source}.\n"
        "# Do not edit: change that file and run `python tools/gen_sync.py`.\n"
    )
    return f"{header}# sha256 of the rest: {_digest(text)}\n\n{text}"


def _method(source: Source, area: ast.ClassDef, function: ast.AsyncFunctionDef, names: "_Names") -> str:
    names.collect(area, function)
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults))
    defaults += spec.defaults
    shown = [positional[0].arg]
    shown += [_parameter(source, *pair) for pair in zip(positional[1:], defaults[1:], strict=True)]
    if spec.posonlyargs:
        shown.insert(len(spec.posonlyargs), "/")
    passed = [argument.arg for argument in positional[1:]]
    if spec.vararg is not None:
        shown.append("*" + _parameter(source, spec.vararg, None))
        passed.append(f"*{spec.vararg.arg}")
    elif spec.kwonlyargs:
        shown.append("*")
    shown += [_parameter(source, *pair) for pair in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    passed += [f"{argument.arg}={argument.arg}" for argument in spec.kwonlyargs]
    if spec.kwarg is not None:
        shown.append("**" + _parameter(source, spec.kwarg, None))
        passed.append(f"**{spec.kwarg.arg}")
    assert function.returns is not None  # _check_annotated() has seen to it
    doc = _first_line(function)
    arguments = ", ".join([f"_area.{area.name}.{function.name}", *passed])
    return (
        f"    def {function.name}({', '.join(shown)}) -> {source.segment(function.returns)}:\n"
        + (f"        {doc}\n" if doc else "")
        + f"        return {positional[0].arg}.{_runner(function)}({arguments})\n"
    )


def _parameter(source: Source, argument: ast.arg, default: ast.expr | None) -> str:
    assert argument.annotation is not None  # _check_annotated() has seen to it
    shown = f"{argument.arg}: {source.segment(argument.annotation)}"
    return shown if default is None else f"{shown} = {source.segment(default)}"


def _first_line(node: ast.ClassDef | ast.AsyncFunctionDef) -> str | None:
    """The docstring's first line as a docstring of its own."""
    doc = (ast.get_docstring(node) or "").partition("\n")[0].strip()
    if not doc:
        return None
    doc = doc.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return f'"""{doc[:-1]}\\""""' if doc.endswith('"') else f'"""{doc}"""'


class _Names:
    """The names that signatures use, and the imports that bind them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bound = dict(_imported(source))
        for name in _defined(source.tree):
            self._bound.setdefault(name, f"from {source.module} import {name}")
        self.in_annotations: set[str] = set()
        self.at_runtime: set[str] = set()

    def collect(self, area: ast.ClassDef, function: ast.AsyncFunctionDef) -> None:
        spec = function.args
        annotations = [argument.annotation for argument in _arguments(function)] + [function.returns]
        for annotation in annotations:
            if annotation is not None:
                self.in_annotations |= self._used(area, annotation, quoted=True)
        for default in [*spec.defaults, *spec.kw_defaults]:
            if default is not None:
                self.at_runtime |= self._used(area, default, quoted=False)

    def _used(self, area: ast.ClassDef, expression: ast.expr, *, quoted: bool) -> set[str]:
        """The names in ``expression``; with ``quoted`` also those in annotations written as strings."""
        used: set[str] = set()
        for node in ast.walk(expression):
            if isinstance(node, ast.Name):
                if node.id in self._bound:
                    used.add(node.id)
                elif node.id not in _BUILTINS:
                    raise self._source.error(
                        node,
                        f"{node.id}, in a signature of {area.name}, is not defined at the top of the module; "
                        "move it there.",
                    )
            elif quoted and isinstance(node, ast.Constant) and isinstance(node.value, str):
                used |= self._quoted(node.value)
        return used

    def _quoted(self, text: str) -> set[str]:
        try:
            inner = ast.parse(text, mode="eval").body
        except SyntaxError:
            return set()  # the text of a Literal
        return {name.id for name in ast.walk(inner) if isinstance(name, ast.Name)} & self._bound.keys()

    def imports(self, names: set[str]) -> list[str]:
        return sorted({self._bound[name] for name in names})


def _imported(source: Source) -> Iterator[tuple[str, str]]:
    """Every name that an import at the top of the module binds, with the import that binds it alone."""
    package = source.module.split(".")
    for node in _top_level(source.tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                line = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                yield alias.asname or alias.name.partition(".")[0], line
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                origin = ".".join([*package[: -node.level], *([origin] if origin else [])])
            for alias in node.names:
                line = f"from {origin} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                yield alias.asname or alias.name, line


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, with those under ``if TYPE_CHECKING:`` and ``try:``."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _top_level([*node.body, *node.orelse])


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names that the module itself defines at its top."""
    for node in _top_level(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _ruff(text: str, target: Path, root: Path) -> str:
    """``text`` with sorted imports and the project's formatting."""
    for arguments in (["check", "--select=I,UP037", "--fix", "--quiet"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(target), "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=root, encoding="utf-8")
        if done.returncode != 0:
            raise GenerationError(
                f"ruff could not format {target.name} (the extra dev installs it): {done.stderr.strip()}"
            )
        text = done.stdout
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_untouched(text: str) -> bool:
    """Whether a generated file still is what the generator wrote."""
    found = _HASH_LINE.search(text)
    return found is not None and _digest(text[found.end() :].removeprefix("\n")) == found[1]


def compare(root: Path, expected: dict[Path, str]) -> dict[Path, str]:
    """What is wrong with each generated file that is not as it should be."""
    problems = {}
    directory = root / PACKAGE / GENERATED
    for path in sorted({*directory.glob("*.py"), *expected} - {directory / "__init__.py"}):
        text = path.read_text(encoding="utf-8") if path.exists() else None
        if text is None:
            problems[path] = "missing"
        elif not _is_untouched(text):
            problems[path] = "edited by hand"
        elif path not in expected:
            problems[path] = "orphaned: no area file generates it any more"
        elif text != expected[path]:
            problems[path] = "stale"
    return problems


def write(expected: dict[Path, str], problems: dict[Path, str]) -> None:
    """Bring the generated files up to date; edits by hand are not overwritten."""
    edited = [path for path, problem in problems.items() if problem == "edited by hand"]
    if edited:
        names = ", ".join(path.name for path in edited)
        raise GenerationError(
            f"Edited by hand: {names}. Move the change to the area file, delete these and run again."
        )
    for path in problems:
        if path in expected:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(expected[path], encoding="utf-8", newline="\n")
        else:
            path.unlink()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the blocking facade of the async area classes.")
    parser.add_argument("--check", action="store_true", help="only report files that are not up to date")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        expected = generate(root)
        problems = compare(root, expected)
        if not options.check:
            write(expected, problems)
    except (GenerationError, SyntaxError) as error:
        print(error, file=sys.stderr)
        return 1
    for path, problem in problems.items():
        print(f"{path.relative_to(root).as_posix()}: {problem if options.check else 'written'}")
    if options.check and problems:
        print("Run `python tools/gen_sync.py` and commit what it writes.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
