"""Plugins that raise, hang, end the process or lie: they stay out, and the store works on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from genesis_flow.plugins import trial
from tests.client.conftest import user_environment
from tests.plugins.conftest import Maker, Managed, only, source

SAID = "name='bad', version='1.0.0'"
HANGS = """
import threading, time
threading.Thread(target=time.sleep, args=(100000,)).start()
while True:
    time.sleep(1000)
"""
SECRET_AT_THE_CUT = """
def on_enable(self):
    raise OSError(' x ' * 900 + 'mongodb://me:secret' + 'secret' * 99 + '@h/d')
"""
RAISING = {
    "import": (
        source(SAID) + "\nraise RuntimeError('mongodb://me:secret@host/db is down')\n",
        "RuntimeError",
    ),
    "exit": (source(SAID) + "\nraise SystemExit(3)\n", "SystemExit: 3"),
    "missing": (source(SAID) + "\nimport no_such_module_at_all\n", "No module named 'no_such_module_at_all'"),
    "syntax": (source(SAID) + "\nthis is no Python\n", "SyntaxError"),
    "class": (source(SAID).replace("class Plugin", "class Other"), "has no attribute 'Plugin'"),
    "abstract": (source(SAID).replace("get_module_path", "get_nothing"), "abstract"),
    "other": ("class Plugin: pass  # no FrameworkPlugin\n", "it is no FrameworkPlugin but a Plugin"),
    "constructor": (source("name=1/0, version='1.0.0'"), "ZeroDivisionError"),
    "metadata": (
        source(SAID, "@property\ndef metadata(self):\n    return {'name': 'bad'}"),
        "its metadata are no PluginMetadata but a dict",
    ),
    "on_enable": (source(SAID, "def on_enable(self):\n    raise OSError('no')"), "OSError: no"),
    "error": (
        source(
            SAID,
            "def on_enable(self):\n    class E(Exception):\n        __str__ = lambda s: 1 / 0\n    raise E",
        ),
        "E: its message cannot be shown",
    ),
    "cut": (
        source(
            SAID,
            SECRET_AT_THE_CUT,
        ),
        "x …",
    ),
    "long": (source(SAID, "def on_enable(self):\n    raise OSError('x' * 10**6)"), "x …"),
}


@pytest.mark.parametrize("kind", RAISING)
def test_one_that_raises_is_unavailable_and_says_why(kind: str, maker: Maker, managed: Managed) -> None:
    code, why = RAISING[kind]
    maker.package("bad", code)
    maker.package("good", source("name='good', version='1.0.0'"))
    manager = managed()
    for _ in range(2):
        with pytest.raises(MlflowException, match="The plugin 'bad' cannot be enabled: ") as caught:
            manager.enable("bad")
        assert why in caught.value.message
        assert "secret" not in caught.value.message
        assert len(caught.value.message) < 700
        with pytest.raises(MlflowException), manager.plugin_context("bad"):
            raise AssertionError("the block must not run")
    found = only(manager, "bad")
    assert found["state"] == "unavailable"
    assert why in str(found["why_unavailable"])
    with manager.plugin_context("good"):
        pass


def test_one_that_raises_when_it_is_disabled_is_disabled(
    maker: Maker, managed: Managed, caplog: pytest.LogCaptureFixture
) -> None:
    maker.package("bad", source(SAID, "def on_disable(self):\n    raise SystemExit('no')"))
    manager = managed()
    with manager.plugin_context("bad"):
        pass
    assert not manager.is_enabled("bad")
    assert "The plugin 'bad' failed when it was disabled: SystemExit: no" in caplog.text


def test_one_that_fails_for_a_while_can_be_enabled_later(
    maker: Maker, managed: Managed, tmp_path: Path
) -> None:
    wanted = tmp_path / "there"
    maker.package("late", source("name='late', version='1.0.0'") + f"\nopen({str(wanted)!r})\n")
    manager = managed()
    with pytest.raises(MlflowException, match="FileNotFoundError"):
        manager.enable("late")
    assert only(manager, "late")["state"] == "unavailable"
    wanted.touch()
    manager.enable("late")
    assert only(manager, "late")["state"] == "enabled"


HANGING = """
import json, os, sys, threading
from genesis_flow.plugins import get_plugin_manager
manager = get_plugin_manager()
listed = [each["name"] for each in manager.list_plugins()]
said = manager.why_unavailable("bad")  # what enable() asks too, without the time that MLflow takes
try:
    os.waitpid(-1, os.WNOHANG)
    children = True
except ChildProcessError:
    children = False
print(json.dumps([listed, said, threading.active_count(), children, sys.argv[1] in sys.modules]))
"""


def test_one_that_hangs_is_ended_and_leaves_neither_thread_nor_process(maker: Maker, tmp_path: Path) -> None:
    module = maker.package("bad", source(SAID) + HANGS)
    (tmp_path / "mlflow.conf").write_text(
        f"[plugins]\nenable_builtin = false\nplugin_paths = {maker.folder}\nimport_timeout = 0.5\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", HANGING, module],
        cwd=tmp_path,
        env=user_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed, said, threads, children, is_loaded = json.loads(done.stdout)
    assert listed == ["bad"]
    assert said == "its import did not end within 0.5 s"
    assert (threads, children, is_loaded) == (1, False, False)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"\(signal 11\)"),
        ("import os; os._exit(7)", r"\(exit code 7\)"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_one_that_ends_its_process_ends_that_of_the_trial(
    code: str, why: str, maker: Maker, managed: Managed
) -> None:
    module = maker.package("bad", f"{source(SAID)}\n{code}\n")
    manager = managed(import_timeout=120)
    with pytest.raises(MlflowException, match=why):
        manager.enable("bad")
    assert module not in sys.modules
    assert only(manager, "bad")["state"] == "unavailable"


def test_a_trial_passes_what_can_be_loaded_and_waits_for_no_thread(maker: Maker, managed: Managed) -> None:
    forever = "import threading; threading.Thread(target=threading.Event().wait).start()"
    # Here it would stay for good, so only the trial runs.
    maker.package("good", f"{source(SAID)}\nprint('x' * 10**6)\n{forever}\n")
    assert managed(import_timeout=120).why_unavailable("good") is None


def test_a_plugin_that_enables_itself_begins_no_trial_in_the_trial(
    maker: Maker, managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.package("one", source(SAID))
    (plugin,) = (each for each in managed()._known().values())
    assert plugin.found.target is not None
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_kwargs: pytest.fail("a process is started"))
    monkeypatch.setenv("_GENESIS_FLOW_PLUGIN_TRIAL", "1")
    assert trial.why_not(plugin.found.target, 60) is None


LIES = {
    "newer": ("name='lies', version='9.9.9'", "says that its version is 9.9.9; its package is 1.0.0"),
    "computed": (
        "name='lies', version='.'.join('999')",
        "says that its version is 9.9.9; its package is 1.0.0",
    ),
    "name": ("name='truth', version='1.0.0'", "calls itself truth"),
}
NO_VERSIONS = {
    "text": ("version='the newest'", "version must be a version such as 1.0.2, not 'the newest'"),
    "none": ("version=None", "version must be a text, not NoneType"),
    "number": ("version=1.0", "version must be a text, not float"),
    "huge": ("version='9' * 10**6 + 'x'", "version must be a version"),
    "subclass": ("version=type('S', (str,), {})('1.0.0')", "version must be a text, not S"),
    "requirement": ("version='1.0.0', dependencies=['>>> x']", "'>>> x' is no requirement"),
    "requirements": ("version='1.0.0', dependencies='numpy'", "dependencies must be a list"),
    "type": ("version='1.0.0', plugin_type='wizard'", "'wizard' is not a valid PluginType"),
}


@pytest.mark.parametrize("kind", LIES)
def test_one_that_lies_about_its_version_has_that_of_its_package(
    kind: str, maker: Maker, managed: Managed
) -> None:
    metadata, note = LIES[kind]
    maker.package("lies", source(metadata))
    manager = managed()
    with manager.plugin_context("lies"):
        found = only(manager, "lies")
    assert (found["version"], found["notes"]) == ("1.0.0", [note])


@pytest.mark.parametrize("kind", NO_VERSIONS)
def test_one_whose_version_is_none_is_unavailable(kind: str, maker: Maker, managed: Managed) -> None:
    metadata, why = NO_VERSIONS[kind]
    maker.package("lies", source(f"name='lies', {metadata}"))
    manager = managed()
    with pytest.raises(MlflowException) as caught:
        manager.enable("lies")
    assert why in caught.value.message
    assert only(manager, "lies")["version"] == "1.0.0"


def test_one_whose_package_has_no_version_is_unavailable(maker: Maker, managed: Managed) -> None:
    maker.package("lies", source("name='lies', version='1.0.0'"), version="banana")
    manager = managed()
    assert only(manager, "lies")["why_unavailable"] == (
        "its package says that its version is 'banana', which is none"
    )


def test_metadata_that_were_changed_are_checked_again(maker: Maker, managed: Managed) -> None:
    change = "def get_module_path(self):\n    return 'x'\n\n@property\ndef metadata(self):\n"
    change += "    object.__setattr__(self._metadata, 'version', 'banana')\n    return self._metadata"
    maker.package("lies", source("name='lies', version='1.0.0'", change))
    with pytest.raises(MlflowException, match="version must be a version"):
        managed().enable("lies")


def test_bad_plugins_do_not_touch_the_store(
    maker: Maker, managed: Managed, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("genesis_flow.plugins", "mlflow.plugins")
    modules = [
        maker.package("hangs", source("name='hangs', version='1.0.0'") + HANGS, groups=both),
        maker.package("raises", "raise SystemExit('imported')\n", groups=both),
        maker.package("lies", source("name='lies', version='9.9.9'"), version="banana", groups=both),
        maker.package("exits", "import os; os._exit(1)\n", groups=both),
    ]
    monkeypatch.syspath_prepend(maker.folder)
    client = MlflowClient(store_uri, store_uri)
    manager = managed(plugin_paths=(), import_timeout=0.5)
    assert {each["name"] for each in manager.list_plugins()} == {"hangs", "raises", "lies", "exits"}
    for name in ("raises", "lies", "hangs", "exits"):
        with pytest.raises(MlflowException, match=f"The plugin '{name}' cannot be enabled: "):
            manager.enable(name)
        run = client.create_run("0")
        client.log_metric(run.info.run_id, "after", 1.0)
        assert client.get_run(run.info.run_id).data.metrics == {"after": 1.0}
        client.create_registered_model(f"after {name}")
    assert len(client.search_registered_models()) == 4
    assert sys.modules.keys() & set(modules) == set()
