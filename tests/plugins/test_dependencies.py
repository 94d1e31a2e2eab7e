"""What plugins need, compared with what is installed."""

from pathlib import Path

import pytest

from genesis_flow.plugins import dependencies
from genesis_flow.plugins.dependencies import check, too_old
from tests.plugins.conftest import Maker, Managed, only, source


def installed(folder: Path, name: str, version: str, *lines: str) -> None:
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    text = [f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *text]) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    dependencies.forget()
    return tmp_path


def test_versions_are_compared(folder: Path) -> None:
    installed(folder, "thing_one", "1.4.0")
    installed(folder, "thing_two", "2.0.0rc1")
    installed(folder, "thing_odd", "as new as it gets")
    for requirement, why_not in {
        "thing-one": None,
        "Thing.One>=1.2,<2": None,
        "thing-one[no-such-extra]": None,
        "thing-two>=2.0.0rc1": None,
        "thing-one>=1.5": "thing-one 1.4.0 is installed, and >=1.5 is needed",
        "thing-none>=1; python_version < '3'": None,
        "thing-none": "thing-none is not installed",
        "thing-odd": None,
        "thing-odd>=1": "thing-odd says that its version is 'as new as it gets', which cannot be compared",
        "no requirement": "'no requirement' is no requirement",
    }.items():
        assert check(requirement).why_not == why_not, requirement


def test_extras_are_followed(folder: Path) -> None:
    installed(
        folder,
        "thing_main",
        "1.0",
        "Requires-Dist: thing_always",
        "Requires-Dist: thing_more[deep]>=2; extra == 'more'",
        "Requires-Dist: thing_main[more]; extra == 'all'",
        "Provides-Extra: more",
    )
    assert check("thing-main").why_not is None
    assert check("thing-main[all]").why_not == "thing_more is not installed, which thing_main[more] needs"
    installed(folder, "thing_more", "2.1", "Requires-Dist: thing_deep>=3; extra == 'deep'")
    installed(folder, "thing_deep", "2.9")
    dependencies.forget()
    assert check("thing-main[more]").why_not == (
        "thing_deep 2.9 is installed, and >=3 is needed by thing_more[deep]"
    )


def test_another_package_may_bring_the_module(folder: Path) -> None:
    (folder / "thing_of_many.py").touch()
    installed(folder, "thing_of_many_cpu", "3.1")
    (folder / "thing_of_many_cpu-1.dist-info" / "RECORD").write_text("thing_of_many.py,,\n")
    dependencies.forget()
    assert check("thing-of-many>=3").installed == "3.1"
    (folder / "thing_loose.py").touch()
    dependencies.forget()
    assert (check("thing-loose").installed, check("thing-loose").why_not) == ("unknown", None)
    assert "not as a package with a version" in str(check("thing-loose>=1").why_not)


def test_the_wanted_version_of_genesis_flow() -> None:
    assert too_old("0.1.0", "0.1.0", "3.17.2") is None
    assert too_old("0.2", "0.1.0", "3.17.2") == "it needs genesis_flow 0.2 or newer, and 0.1.0 is installed"
    # The documents' 3.1.0 is of a fork that had MLflow's numbers.
    assert too_old("3.1.0", "0.1.0", "3.17.2") is None
    assert too_old("3.99", "0.1.0", "3.17.2") == "it needs MLflow 3.99 or newer, and 3.17.2 is installed"
    assert (
        too_old("3.1.0", "3.0.0", "3.17.2") == "it needs genesis_flow 3.1.0 or newer, and 3.0.0 is installed"
    )


def test_a_plugin_without_what_it_needs_says_so_and_is_not_loaded(maker: Maker, managed: Managed) -> None:
    failing = "\nraise SystemExit('imported')\n"
    said = "dependencies=['pytest>=99', 'thing-none'], optional_dependencies=['thing-else']"
    maker.package(
        "one",
        source(f"name='one', version='1.0.0', {said}") + failing,
        requires=("click>=1", "thing-of-extra; extra == 'x'"),
    )
    maker.package("new", source("name='new', version='1.0.0', min_genesis_flow_version='2.9'") + failing)
    manager = managed()
    found = only(manager, "one")
    why = str(found["why_unavailable"])
    assert why.startswith("pytest ")
    assert why.endswith("is installed, and >=99 is needed; thing-none is not installed")
    rows = [(each["requirement"], each["fulfilled"], each["optional"]) for each in found["dependencies"]]  # type: ignore[attr-defined]
    assert rows == [
        ("click>=1", True, False),
        ("pytest>=99", False, False),
        ("thing-none", False, False),
        ("thing-else", False, True),
    ]
    assert str(only(manager, "new")["why_unavailable"]).startswith("it needs genesis_flow 2.9 or newer")
    for name in ("one", "new"):
        with pytest.raises(Exception, match=f"'{name}' cannot be enabled: "):
            manager.enable(name)
