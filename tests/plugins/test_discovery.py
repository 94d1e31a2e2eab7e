"""Where plugins are found, and that nothing of them is run for it."""

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException

from genesis_flow.cli.main import cli
from genesis_flow.plugins.manager import PluginManager
from genesis_flow.plugins.settings import PluginSettings
from tests.plugins.conftest import Maker, Managed, only, source

FAILS = "\nraise RuntimeError('imported')\n"


def test_entry_points_of_both_groups_are_found_and_nothing_is_run(maker: Maker, managed: Managed) -> None:
    said = "description='Says it', author='Somebody', dependencies=['no-such-package>=2']"
    modules = [
        maker.package("ours", source(f"name='ours', version='1.0.0', {said}") + FAILS),
        maker.package("theirs", source("name='theirs', version='1.0.0'") + FAILS, groups=("mlflow.plugins",)),
        maker.package(
            "both",
            source("name='both', version='1.0.0'") + FAILS,
            groups=("mlflow.plugins", "genesis_flow.plugins"),
        ),
    ]
    manager = managed()
    found = {each["name"]: each for each in manager.list_plugins()}
    assert set(found) == {"ours", "theirs", "both"}
    assert {name: each["notes"] for name, each in found.items()} == {"ours": [], "theirs": [], "both": []}
    assert found["ours"]["origin"] == f"package_{modules[0]} 1.0.0"
    assert (found["ours"]["description"], found["ours"]["author"]) == ("Says it", "Somebody")
    assert found["ours"]["state"] == "unavailable"
    assert found["ours"]["why_unavailable"] == "no-such-package is not installed"
    assert (found["theirs"]["state"], found["both"]["state"]) == ("available", "available")
    assert sys.modules.keys() & set(modules) == set()


def test_packages_that_are_installed_are_found_without_a_folder(
    maker: Maker, managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.package("installed", source("name='installed', version='1.0.0'"))
    monkeypatch.syspath_prepend(maker.folder)
    manager = managed(plugin_paths=())
    assert only(manager, "installed")["state"] == "available"
    with manager.plugin_context("installed"):
        assert manager.is_enabled("installed")
    maker.package("later", source("name='later', version='1.0.0'"))
    manager.discover()
    assert only(manager, "later")["state"] == "available"


def test_modules_of_a_folder_are_found_and_nothing_is_run(maker: Maker, managed: Managed) -> None:
    module = maker.module(source("name='loose', version='2.1.0', description='Lies in a folder'") + FAILS)
    maker.module("x = 1\n")
    maker.module("this is no Python, of a FrameworkPlugin\n")
    os.mkfifo(maker.folder / "a_pipe.py")
    package = maker.folder / "package_of_a_folder"
    package.mkdir()
    (package / "__init__.py").write_text(source("name='deep', version='1.0.0'"))
    maker.modules.append(package.name)
    manager = managed()
    assert [each["name"] for each in manager.list_plugins()] == ["deep", "loose"]
    loose = only(manager, "loose")
    assert (loose["version"], loose["description"]) == ("2.1.0", "Lies in a folder")
    assert loose["origin"] == str(maker.folder)
    assert module not in sys.modules
    before = list(sys.path)
    with manager.plugin_context("deep"):
        # At its end: what lies in the folder hides nothing that is installed.
        assert sys.path == [*before, str(maker.folder)]


def test_a_module_that_another_one_hides_is_not_loaded(maker: Maker, managed: Managed) -> None:
    (maker.folder / "json.py").write_text(source("name='false_json', version='1.0.0'"))
    manager = managed()
    assert (
        only(manager, "false_json")["why_unavailable"] == "another module has the name json: give it its own"
    )
    with pytest.raises(MlflowException, match="give it its own"):
        manager.enable("false_json")


def test_of_two_with_one_name_the_first_has_it(maker: Maker, managed: Managed) -> None:
    maker.package("twice", source("name='twice', version='1.0.0'"))
    maker.module(source("name='twice', version='2.0.0'"))
    maker.package("sklearn", source("name='sklearn', version='1.0.0'"))
    manager = managed(enable_builtin=True)
    twice = only(manager, "twice")
    assert twice["version"] == "1.0.0"
    assert twice["notes"] == [f"{maker.folder} has a plugin of that name too, which is left out"]
    assert str(only(manager, "sklearn")["origin"]).startswith("MLflow")
    # Without MLflow's own the name is free.
    assert str(only(managed(), "sklearn")["origin"]).startswith("package_")


def test_what_cannot_be_read_hides_no_other(maker: Maker, managed: Managed, tmp_path: Path) -> None:
    maker.package("whole", source("name='whole', version='1.0.0'"))
    broken = maker.folder / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_bytes(b"\xff\xfe\x00")
    (broken / "entry_points.txt").write_bytes(b"[genesis_flow.plugins]\nbroken = \xff\xfe\n")
    maker.package("no class", source("name='x', version='1.0.0'"), value="{module}:Plugin")
    maker.package("odd", source("name='odd', version='1.0.0'"), value="{module}: no class")
    maker.package("nowhere", "", value="no_such_module_anywhere:Plugin")
    manager = managed(plugin_paths=(maker.folder, tmp_path / "missing"))
    assert only(manager, "whole")["state"] == "available"
    assert "is not like 'package.module:Class'" in str(only(manager, "odd")["why_unavailable"])
    assert "there is no module no_such_module_anywhere" in str(only(manager, "nowhere")["why_unavailable"])
    problems = "\n".join(manager.problems)
    assert "broken-1.dist-info" in problems
    assert "has the name 'no class': it needs another" in problems
    assert f"{tmp_path / 'missing'}' does not exist: create or remove it" in problems


def test_discovery_and_mlflows_own_can_be_switched_off(maker: Maker, managed: Managed) -> None:
    maker.package("one", source("name='one', version='1.0.0'"))
    assert managed(auto_discover=False).list_plugins() == []
    with pytest.raises(MlflowException, match="MLflow's own are left out by enable_builtin = false"):
        managed().enable("sklearn")


def test_settings_come_from_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "mlflow.conf"
    environment = {"GENESIS_FLOW_CONF": str(conf), "HOME": str(tmp_path)}
    conf.write_text(
        "[plugins]\nauto_discover = false\nenable_builtin = no\n"
        "plugin_paths = here:/there\nimport_timeout = 2.5\n"
    )
    assert PluginSettings.resolve(environment) == PluginSettings(
        auto_discover=False,
        enable_builtin=False,
        plugin_paths=(tmp_path / "here", Path("/there")),
        import_timeout=2.5,
    )
    monkeypatch.chdir(tmp_path)
    changed = {"GENESIS_FLOW_PLUGIN_PATHS": "/a:b:/a", "GENESIS_FLOW_PLUGIN_TIMEOUT": "0"}
    found = PluginSettings.resolve(environment | changed)
    assert (found.plugin_paths, found.import_timeout) == ((Path("/a"), tmp_path / "b"), 0)
    conf.write_text("")
    assert PluginSettings.resolve(environment) == PluginSettings()
    for bad in ("soon", "-1", "inf"):
        with pytest.raises(MlflowException, match="GENESIS_FLOW_PLUGIN_TIMEOUT must be a number of seconds"):
            PluginSettings.resolve({**environment, "GENESIS_FLOW_PLUGIN_TIMEOUT": bad})


def test_the_command_lists_and_checks(maker: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GENESIS_FLOW_PLUGIN_PATHS", str(maker.folder))
    monkeypatch.setattr("genesis_flow.plugins.manager._manager", None)
    maker.package("good", source("name='good', version='1.0.0', description='Is \\x1b[31mgood'"))
    maker.package("bad", source("name='bad', version='1.0.0'") + FAILS)
    run = CliRunner().invoke
    listed = run(cli, ["plugins", "list"])
    assert listed.exit_code == 0, listed.output
    rows = {line.split()[0]: line.split() for line in listed.output.splitlines()}
    assert rows["good"][1:3] == ["available", "1.0.0"]
    assert rows["sklearn"][1] == "available"
    assert "\x1b" not in listed.output
    assert "johnsnowlabs" not in rows
    assert "more of MLflow's frameworks are not installed: genesis-flow plugins list --all" in listed.output
    assert "johnsnowlabs is not installed" in run(cli, ["plugins", "list", "--all"]).output
    as_json = {each["name"]: each for each in json.loads(run(cli, ["plugins", "list", "--json"]).output)}
    assert as_json["good"]["state"] == "available"
    assert as_json["sklearn"]["dependencies"][0]["requirement"] == "scikit-learn"
    assert run(cli, ["plugins", "check", "good"]).output == "The plugin 'good' can be enabled.\n"
    checked = run(cli, ["plugins", "check", "bad"])
    assert (checked.exit_code, checked.output) == (
        1,
        "Error: The plugin 'bad' cannot be enabled: RuntimeError: imported.\n",
    )
    assert "did you mean 'good'" in run(cli, ["plugins", "check", "goood"]).output


def test_a_manager_takes_the_settings_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENESIS_FLOW_PLUGIN_PATHS", "/somewhere")
    assert PluginManager().settings.plugin_paths == (Path("/somewhere"),)
