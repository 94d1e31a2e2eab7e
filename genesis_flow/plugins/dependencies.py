"""Whether what a plugin needs is installed, by what packages say of themselves: nothing is imported."""

import contextlib
import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

FORK_NUMBERS_FROM = 3
"""Plugins of a fork that had MLflow's numbers ask for 3.1.0: that is compared with MLflow's version."""
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Dependency:
    """A requirement, and what there is of it."""

    requirement: str
    installed: str | None
    why_not: str | None
    """What is missing or does not fit."""
    optional: bool = False


def check(requirement: str, *, module: str | None = None, optional: bool = False) -> Dependency:
    """Look for a requirement; ``module`` is what it brings, if that has another name."""
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return Dependency(requirement, None, f"{requirement!r} is no requirement", optional)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return Dependency(requirement, None, None, optional)  # not on this machine
    provider = _provider(wanted.name, module)
    if provider is None:
        return Dependency(requirement, None, f"{wanted.name} is not installed", optional)
    found, version = provider
    why_not = _unfit(wanted, found, version) or next(_missing_of_extras(found, wanted.extras, set()), None)
    return Dependency(requirement, version, why_not, optional)


def too_old(wanted: str, genesis_flow: str, mlflow: str | None) -> str | None:
    """Why ``min_genesis_flow_version`` is not met."""
    if Version(wanted).major >= FORK_NUMBERS_FROM > Version(genesis_flow).major:
        if mlflow is not None and Version(mlflow) >= Version(wanted):
            return None
        return f"it needs MLflow {wanted} or newer, and {mlflow or 'none'} is installed"
    if Version(genesis_flow) >= Version(wanted):
        return None
    return f"it needs genesis_flow {wanted} or newer, and {genesis_flow} is installed"


def is_version(text: object) -> bool:
    try:
        Version(str(text))
    except ValueError:  # an InvalidVersion, or a number with more digits than Python reads
        return False
    return True


def outside(version: str, minimum: str, maximum: str) -> bool:
    """Whether a version is not one of a range; not said of what cannot be compared."""
    return is_version(version) and not Version(minimum) <= Version(version) <= Version(maximum)


def _unfit(wanted: Requirement, found: str, version: str) -> str | None:
    if not wanted.specifier:
        return None
    if version == UNKNOWN:
        return f"{found} is there, but not as a package with a version, and {wanted.specifier} is needed"
    if not is_version(version):
        return f"{found} says that its version is {version[:100]!r}, which cannot be compared"
    if wanted.specifier.contains(version, prereleases=True):
        return None
    return f"{found} {version} is installed, and {wanted.specifier} is needed"


def _provider(name: str, module: str | None) -> tuple[str, str] | None:
    """The package of that name, or one that brings the module: xgboost-cpu for xgboost."""
    if version := _version_of(name):
        return name, version
    module = module or name.replace("-", "_")
    if not _is_there(module):
        return None
    for package in _bringing(module):
        with contextlib.suppress(KeyError, ValueError):  # its metadata were damaged
            other = str(package.metadata["Name"])
            if version := _version_of(other):
                return other, version
    return name, UNKNOWN  # a folder on the path


def _is_there(module: str) -> bool:
    """Whether a top-level module is there, without importing it; a shared namespace says nothing."""
    try:
        spec = None if "." in module else importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _version_of(name: str) -> str | None:
    try:
        # A package whose metadata were damaged has None here.
        return importlib.metadata.version(name) or None
    except (importlib.metadata.PackageNotFoundError, KeyError, ValueError):
        return None


@functools.lru_cache(maxsize=256)
def _bringing(module: str) -> tuple[importlib.metadata.Distribution, ...]:
    """The packages that bring a module. A file of each package is read, so only when it is needed.

    ``packages_distributions()`` of Python says it of all modules, and takes half a second.
    """
    return tuple(package for package in importlib.metadata.distributions() if _brings(package, module))


def _brings(package: importlib.metadata.Distribution, module: str) -> bool:
    try:
        declared = package.read_text("top_level.txt")
        files = "\n" + (package.read_text("RECORD") or "") if declared is None else ""
    except (OSError, ValueError):
        return False
    if declared is not None:
        return module in declared.split()
    return f"\n{module}/__init__." in files or f"\n{module}.py," in files


def forget() -> None:
    """What was found is looked for anew: something may have been installed."""
    importlib.invalidate_caches()
    _bringing.cache_clear()


def _missing_of_extras(name: str, extras: set[str], seen: set[tuple[str, str]]) -> Iterator[str]:
    """What the extras of a package want that is not there."""
    for extra in sorted(extras - {extra for known, extra in seen if known == name}):
        seen.add((name, extra))
        for inner in _wanted_by(name, extra):
            provider = _provider(inner.name, None)
            if provider is None:
                yield f"{inner.name} is not installed, which {name}[{extra}] needs"
                continue
            if why_not := _unfit(inner, *provider):
                yield f"{why_not} by {name}[{extra}]"
            yield from _missing_of_extras(provider[0], inner.extras, seen)


def _wanted_by(name: str, extra: str) -> Iterator[Requirement]:
    try:
        lines = importlib.metadata.requires(name) or ()
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return
    for line in lines:
        with contextlib.suppress(InvalidRequirement):
            wanted = Requirement(line)
            marker = wanted.marker
            # What is wanted in any case is not wanted by the extra.
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                yield wanted
