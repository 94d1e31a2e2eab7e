"""Where plugins are found: entry points of packages, and folders. Nothing of a plugin is run."""

import configparser
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from genesis_flow.plugins.base import (
    ENTRY_POINT_GROUPS,
    FrameworkPlugin,
    PluginMetadata,
    PluginType,
    is_name,
)
from genesis_flow.plugins.dependencies import is_version
from genesis_flow.plugins.reading import described_in, source_of

_VALUE = re.compile(r"(?P<module>\w+(\.\w+)*)\s*:\s*(?P<attribute>\w+(\.\w+)*)(\s*\[.*\])?")

# A folder comes last on the path.
_HIDDEN = "another module has the name {}: give it its own"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a plugin's class stands."""

    module: str
    attribute: str
    folder: Path | None = None
    """Put at the end of sys.path before it is imported: it hides nothing that is installed."""


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin as it is known before anything of it is loaded."""

    name: str
    origin: str
    target: Target | None = None
    make: Callable[[], FrameworkPlugin] | None = None
    """For those that are ours or were registered: loads nothing that could hang."""
    version: str | None = None
    description: str = ""
    author: str = ""
    type: str = PluginType.FRAMEWORK
    dependencies: tuple[str, ...] = ()
    optional_dependencies: tuple[str, ...] = ()
    min_genesis_flow_version: str | None = None
    module: str | None = None
    """What the one dependency of a builtin brings, where it has another name."""
    tested: tuple[str, str] | None = None
    """The versions that MLflow names for the framework of a builtin."""
    why_not: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Findings:
    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Sentences about what could not be read."""


def discover(folders: tuple[Path, ...]) -> Findings:
    """The plugins of installed packages, then those of the folders, in their order."""
    findings = Findings()
    _add_packages(findings, None)
    for folder in folders:
        if not folder.is_dir():
            findings.problems.append(
                f"The folder of plugins {str(folder)!r} does not exist: create or remove it."
            )
            continue
        _add_packages(findings, folder)
        _add_modules(findings, folder)
    return findings


def _add_packages(findings: Findings, folder: Path | None) -> None:
    seen = set()
    for package in distributions() if folder is None else distributions(path=[str(folder)]):
        try:
            points = list(_points(package))
            if not points:
                continue
            name = str(package.metadata["Name"])
            if name.lower() in seen:
                continue  # the first one on the path is the one that is imported
            seen.add(name.lower())
            for point, value in points:
                _add(findings, _of_entry_point(point, value, package, folder))
        except Exception as error:  # noqa: BLE001 - anybody's text: what is broken hides no other
            why = f"{type(error).__name__}: {error}"
            findings.problems.append(f"Plugins of {_named(package)} cannot be read ({why}): reinstall it.")


def _points(package: Distribution) -> Iterator[tuple[str, str]]:
    """Names and values of a package's entry points in our groups.

    Read here, since Python's own reader takes ten times as long for those of all packages, and some versions
    of it drop all points of a package for one that is wrong.
    """
    text = package.read_text("entry_points.txt") or ""
    if not any(group in text for group in ENTRY_POINT_GROUPS):
        return
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names keep their case
    parser.read_string(text)
    for group in ENTRY_POINT_GROUPS:
        if parser.has_section(group):
            yield from ((name.strip(), value.strip()) for name, value in parser.items(group))


def _named(package: Distribution) -> str:
    return str(getattr(package, "_path", "a package"))


def _of_entry_point(point: str, value: str, package: Distribution, folder: Path | None) -> Found:
    name, version = str(package.metadata["Name"]), package.metadata["Version"]
    said: dict[str, Any] = {}
    target = why_not = None
    if (parts := _VALUE.fullmatch(value)) is None:
        why_not = f"its entry point {value[:100]!r} is not like 'package.module:Class'"
    else:
        target = Target(parts["module"], parts["attribute"], folder)
        try:
            file = source_of(target.module, folder)
            said = {} if file is None else _said_by(file, target.attribute)
            if file is not None and folder is not None and not file.is_relative_to(folder):
                why_not = _HIDDEN.format(target.module)
        except LookupError as error:
            why_not = f"{error.args[0]}, which its entry point names"
    found = Found(
        name=point,
        origin=f"{name} {version}",
        target=target,
        version=version,
        description=next(iter(package.metadata.get_all("Summary") or ()), ""),
        why_not=why_not,
        # What an extra wants is nobody's dependency.
        dependencies=tuple(line for line in package.requires or () if "extra ==" not in line),
    )
    return _with(found, said)


def _said_by(file: Path, attribute: str) -> dict[str, Any]:
    return next((each.said for each in described_in(file) if each.attribute == attribute), {})


def _add_modules(findings: Findings, folder: Path) -> None:
    """Modules and packages that lie in the folder without an installation."""
    for file in sorted((*folder.glob("*.py"), *folder.glob("*/__init__.py"))):
        module = file.parent.name if file.name == "__init__.py" else file.stem
        for each in described_in(file):
            target = Target(module, each.attribute, folder)
            name = each.said.get("name")
            found = Found(name=name if type(name) is str else module, origin=str(folder), target=target)
            _add(findings, _hidden(_with(found, each.said), file))


def _hidden(found: Found, file: Path) -> Found:
    """Another module of that name would be imported."""
    assert found.target is not None
    try:
        other = source_of(found.target.module, found.target.folder)
    except LookupError:
        other = None
    if other is not None and other.samefile(file):
        return found
    return replace(found, why_not=_HIDDEN.format(found.target.module))


def _with(found: Found, said: dict[str, Any]) -> Found:
    """With what the class says of itself: claims, which loading it checks."""
    if not said:
        return found
    try:
        metadata = PluginMetadata(**({"name": found.name, "version": found.version or "0"} | said))
    except (TypeError, ValueError) as error:
        return replace(found, why_not=found.why_not or f"it describes itself wrongly: {error}")
    return claimed(found, metadata)


def claimed(found: Found, metadata: PluginMetadata) -> Found:
    """The version of a package is the one that it was installed with, whatever its class says."""
    notes = list(found.notes)
    if found.version is not None and metadata.version != found.version:
        notes.append(f"says that its version is {metadata.version}; its package is {found.version}")
    if metadata.name != found.name:
        notes.append(f"calls itself {metadata.name}")
    return replace(
        found,
        version=found.version or metadata.version,
        description=metadata.description or found.description,
        author=metadata.author,
        type=metadata.plugin_type,
        dependencies=tuple(dict.fromkeys((*found.dependencies, *metadata.dependencies))),
        optional_dependencies=tuple(
            dict.fromkeys((*found.optional_dependencies, *metadata.optional_dependencies))
        ),
        min_genesis_flow_version=metadata.min_genesis_flow_version,
        notes=tuple(dict.fromkeys(notes)),
    )


def _add(findings: Findings, found: Found) -> None:
    """A plugin that is named twice is one; of two with one name the first has it."""
    if not is_name(found.name):
        findings.problems.append(
            f"A plugin of {found.origin} has the name {found.name[:100]!r}: it needs another."
        )
        return
    if found.version is not None and not is_version(found.version):
        found = replace(
            found,
            why_not=f"its package says that its version is {found.version[:100]!r}, which is none",
        )
    for other in findings.found:
        if other.target is not None and found.target is not None and _same(other.target, found.target):
            return
    findings.found.append(found)


def _same(one: Target, other: Target) -> bool:
    return (one.module, one.attribute) == (other.module, other.attribute)


def by_name(found: Iterator[Found]) -> dict[str, Found]:
    """Of several with one name the first has it, and says so."""
    named: dict[str, Found] = {}
    for each in found:
        first = named.setdefault(each.name, each)
        if first is not each:
            note = f"{each.origin} has a plugin of that name too, which is left out"
            named[each.name] = replace(first, notes=(*first.notes, note))
    return named
