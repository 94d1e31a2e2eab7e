"""Plugins: which there are, whether they can be used, and their life.

The stores know nothing of this module. A plugin's code runs when it is enabled and not before, in the thread
of who enables it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TypedDict, TypeVar

from genesis_flow import __version__
from genesis_flow.compat import packages
from genesis_flow.core.errors import invalid
from genesis_flow.plugins import dependencies, trial
from genesis_flow.plugins.base import FrameworkPlugin, PluginState
from genesis_flow.plugins.builtin import builtins
from genesis_flow.plugins.dependencies import Dependency
from genesis_flow.plugins.discovery import Found, by_name, claimed, discover
from genesis_flow.plugins.settings import PluginSettings

_logger = logging.getLogger("genesis_flow")

T = TypeVar("T")


class DependencyInfo(TypedDict):
    """A requirement of a plugin, and what there is of it."""

    requirement: str
    installed: str | None
    fulfilled: bool
    optional: bool


class PluginInfo(TypedDict):
    """What ``list_plugins`` says of a plugin."""

    name: str
    state: str
    version: str | None
    type: str
    description: str
    author: str
    origin: str
    dependencies: list[DependencyInfo]
    why_unavailable: str | None
    notes: list[str]


class _Slot:
    """A plugin and its state in this process."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.plugin: FrameworkPlugin | None = None
        self.failure: str | None = None
        self.is_on = False
        self.is_kept = False  # enabled until it is disabled
        self.contexts = 0
        self.lock = threading.RLock()

    def dependencies(self) -> list[Dependency]:
        found = self.found
        return [
            *(dependencies.check(each, module=found.module) for each in found.dependencies),
            *(dependencies.check(each, optional=True) for each in found.optional_dependencies),
        ]

    def why_not(self, checked: list[Dependency]) -> str | None:
        """What is known to be in the way, before the plugin is tried."""
        if self.found.why_not:
            return self.found.why_not
        if (wanted := self.found.min_genesis_flow_version) and (
            too_old := dependencies.too_old(wanted, __version__, packages.installed())
        ):
            return too_old
        return "; ".join(each.why_not for each in checked if each.why_not and not each.optional) or None

    def info(self) -> PluginInfo:
        found, checked = self.found, self.dependencies()
        why = None if self.is_on else self.why_not(checked) or self.failure
        state = (
            PluginState.ENABLED if self.is_on else PluginState.UNAVAILABLE if why else PluginState.AVAILABLE
        )
        return PluginInfo(
            name=found.name,
            state=state.value,
            version=found.version,
            type=str(found.type),
            description=found.description,
            author=found.author,
            origin=found.origin,
            dependencies=[
                DependencyInfo(
                    requirement=each.requirement,
                    installed=each.installed,
                    fulfilled=each.why_not is None,
                    optional=each.optional,
                )
                for each in checked
            ],
            why_unavailable=why,
            notes=[*found.notes, *_not_tested(found, checked)],
        )


class PluginManager:
    """The plugins of a process. ``get_plugin_manager()`` has the one that all share."""

    def __init__(self, settings: PluginSettings | None = None) -> None:
        self.settings = settings or PluginSettings.resolve()
        self._slots: dict[str, _Slot] | None = None
        self._registered: list[Found] = []
        self._problems: list[str] = []
        self._lock = threading.RLock()

    def list_plugins(self) -> list[PluginInfo]:
        """All plugins by their names, without loading any."""
        return [slot.info() for _, slot in sorted(self._known().items())]

    @property
    def problems(self) -> list[str]:
        """What could not be read when plugins were looked for."""
        self._known()
        return list(self._problems)

    def discover(self) -> None:
        """Look for plugins anew: those that were installed since are found, those that are enabled stay."""
        with self._lock:
            dependencies.forget()
            known = self._slots or {}
            self._slots = {
                name: self._slot_of(known.get(name), found) for name, found in self._found().items()
            }
            self._slots |= {name: slot for name, slot in known.items() if slot.is_on}
            for problem in self._problems:
                _logger.warning("%s", problem)

    def register(self, plugin: type[FrameworkPlugin] | FrameworkPlugin) -> str:
        """Add a plugin that is no package, such as one of a notebook; its name is returned."""
        try:
            made = _loaded(lambda: trial.checked(plugin))
            metadata = _loaded(lambda: trial.metadata_of(made))
        except _PluginFailed as error:
            raise invalid(f"The plugin cannot be registered: {error}.") from error.__cause__
        found = claimed(Found(name=metadata.name, origin="registered", make=lambda: made), metadata)
        with self._lock:
            if metadata.name in self._known():
                raise invalid(f"There is a plugin {metadata.name!r} already: register yours by another name.")
            self._registered.append(found)
            assert self._slots is not None
            self._slots[metadata.name] = _Slot(found)
        return metadata.name

    def is_enabled(self, name: str) -> bool:
        return self._slot(name).is_on

    def get_plugin(self, name: str) -> FrameworkPlugin:
        """A plugin that is enabled."""
        plugin = self._slot(name).plugin
        if plugin is None or not self.is_enabled(name):
            raise invalid(
                f"The plugin {name!r} is not enabled: use enable({name!r}) or plugin_context({name!r})."
            )
        return plugin

    def enable(self, name: str) -> FrameworkPlugin:
        """Load a plugin and enable it until it is disabled."""
        slot = self._slot(name)
        with slot.lock:
            plugin = self._switched_on(slot)
            slot.is_kept = True
        return plugin

    def disable(self, name: str) -> None:
        """Disable a plugin. One that a ``plugin_context`` uses now is refused."""
        slot = self._slot(name)
        with slot.lock:
            if slot.contexts:
                raise invalid(f"The plugin {name!r} is in use by a plugin_context: leave that first.")
            slot.is_kept = False
            _switch_off(slot)

    @contextmanager
    def plugin_context(self, name: str) -> Iterator[FrameworkPlugin]:
        """Enabled inside; afterwards as it was before, unless somebody else uses it still."""
        slot = self._slot(name)
        with slot.lock:
            plugin = self._switched_on(slot)
            slot.contexts += 1
        try:
            yield plugin
        finally:
            with slot.lock:
                slot.contexts -= 1
                if not slot.is_kept and not slot.contexts:
                    _switch_off(slot)

    def why_unavailable(self, name: str) -> str | None:
        """Why a plugin cannot be enabled; it is loaded in a process of its own to find out, not here."""
        slot = self._slot(name)
        if slot.is_on:
            return None
        why_not, found = slot.why_not(slot.dependencies()), slot.found
        if why_not or found.target is None:
            return why_not
        return trial.why_not(found.target, self.settings.import_timeout)

    def _known(self) -> dict[str, _Slot]:
        with self._lock:
            if self._slots is None:
                self.discover()
            assert self._slots is not None
            return dict(self._slots)

    def _found(self) -> dict[str, Found]:
        self._problems = []
        found: list[Found] = []
        if self.settings.enable_builtin:
            try:
                found += builtins()
            except LookupError as error:
                self._problems.append(f"The frameworks that MLflow knows cannot be listed: {error.args[0]}.")
        found += self._registered
        if self.settings.auto_discover:
            findings = discover(self.settings.plugin_paths)
            found += findings.found
            self._problems += findings.problems
        return by_name(iter(found))

    def _slot_of(self, known: _Slot | None, found: Found) -> _Slot:
        return known if known is not None and known.is_on else _Slot(found)

    def _slot(self, name: str) -> _Slot:
        known = self._known()
        if name in known:
            return known[name]
        near = get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "list_plugins() names those that there are."
        off = (
            " MLflow's own are left out by enable_builtin = false."
            if not self.settings.enable_builtin
            else ""
        )
        raise invalid(f"There is no plugin {name!r}: {hint}{off}")

    def _switched_on(self, slot: _Slot) -> FrameworkPlugin:
        """Load it if that was not done yet; whatever goes wrong is told in one sentence, and remembered."""
        if slot.is_on and slot.plugin is not None:
            return slot.plugin
        name, found = slot.found.name, slot.found
        if why_not := slot.why_not(slot.dependencies()):
            raise _refusal(name, why_not)
        slot.failure = None
        if slot.plugin is None:
            if found.target is not None:
                slot.failure = trial.why_not(found.target, self.settings.import_timeout)
                if slot.failure:
                    raise _refusal(name, slot.failure)
            self._load(slot)
        plugin = slot.plugin
        assert plugin is not None
        self._of_plugin(slot, plugin.on_enable)
        slot.is_on = True
        return plugin

    def _load(self, slot: _Slot) -> None:
        found = slot.found
        make = found.make or (lambda: trial.load(found.target))  # type: ignore[arg-type]
        plugin = self._of_plugin(slot, make)
        if found.target is not None:
            # Now it is known what was computed; a requirement among it may not be met.
            slot.found = claimed(found, self._of_plugin(slot, lambda: trial.metadata_of(plugin)))
            if why_not := slot.why_not(slot.dependencies()):
                raise _refusal(found.name, why_not)
        slot.plugin = plugin

    def _of_plugin(self, slot: _Slot, call: Callable[[], T]) -> T:
        try:
            return _loaded(call)
        except _PluginFailed as error:
            slot.failure = str(error)
            raise _refusal(slot.found.name, slot.failure) from error.__cause__


class _PluginFailed(Exception):
    """Code of a plugin failed; the cause is what it raised."""


def _loaded(call: Callable[[], T]) -> T:
    try:
        return call()
    except (Exception, SystemExit) as error:  # a plugin must not end the program either
        raise _PluginFailed(trial.sentence(error)) from error


def _refusal(name: str, why_not: str) -> Exception:
    return invalid(f"The plugin {name!r} cannot be enabled: {why_not}.")


def _switch_off(slot: _Slot) -> None:
    if not slot.is_on:
        return
    slot.is_on = False
    assert slot.plugin is not None
    try:
        slot.plugin.on_disable()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin's own; the work with it is done
        _logger.warning(
            "The plugin %r failed when it was disabled: %s", slot.found.name, trial.sentence(error)
        )


def _not_tested(found: Found, checked: list[Dependency]) -> Iterator[str]:
    if found.tested is not None:
        for each in checked:
            if each.installed is not None and dependencies.outside(each.installed, *found.tested):
                lowest, highest = found.tested
                yield f"MLflow names {each.requirement} {lowest} to {highest}; {each.installed} is installed"


_manager: PluginManager | None = None
_making = threading.Lock()


def get_plugin_manager() -> PluginManager:
    """The manager of this process, made when it is first asked for."""
    global _manager
    with _making:
        if _manager is None:
            _manager = PluginManager()
        return _manager


def list_plugins() -> list[PluginInfo]:
    """What there is: name, state, version, dependencies, why unavailable."""
    return get_plugin_manager().list_plugins()


def enable(name: str) -> FrameworkPlugin:
    """See :meth:`PluginManager.enable`."""
    return get_plugin_manager().enable(name)


def disable(name: str) -> None:
    """See :meth:`PluginManager.disable`."""
    get_plugin_manager().disable(name)


@contextmanager
def plugin_context(name: str) -> Iterator[FrameworkPlugin]:
    """See :meth:`PluginManager.plugin_context`."""
    with get_plugin_manager().plugin_context(name) as plugin:
        yield plugin
