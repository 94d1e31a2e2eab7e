"""What loading lazily saves: the manager of plugins beside others, and beside the frameworks themselves.

    python benchmarks/plugins.py     needs the extra dev; pluggy and stevedore are measured if installed

Each row is the best of several processes: milliseconds of processor time, the peak of memory of the whole
process, and the modules that are loaded at its end. Frameworks are those of MLflow's list that are installed.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# The peak of this process alone: that of getrusage begins with its parent's.
MEASURED = """
import json, sys, time
begin = time.process_time()
{statements}
took = time.process_time() - begin
(line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([took * 1000, int(line.split()[1]) / 1024, len(sys.modules)]))
"""
ALONE, LISTED = "Python alone", "the manager: plugins listed, MLflow's among them"
MANAGER = "from genesis_flow.plugins import get_plugin_manager\nmanager = get_plugin_manager()\n"


@dataclass(frozen=True)
class Row:
    name: str
    milliseconds: float
    megabytes: float
    modules: int

    def __str__(self) -> str:
        return f"{self.name:<58} {self.milliseconds:>9.1f} {self.megabytes:>9.1f} {self.modules:>8}"


def measured(name: str, statements: str, times: int) -> Row:
    found = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED.format(statements=statements)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    milliseconds, megabytes, modules = map(min, zip(*found, strict=True))
    return Row(name, milliseconds, megabytes, int(modules))


def installed_frameworks() -> list[str]:
    from genesis_flow.plugins import list_plugins

    return [
        each["name"]
        for each in list_plugins()
        if each["state"] == "available" and each["origin"].startswith("MLflow")
    ]


def rows(times: int) -> list[tuple[str, str]]:
    found = [(ALONE, "pass")]
    if find_spec("pluggy"):
        load = "import pluggy\nmanager = pluggy.PluginManager('genesis_flow')\n"
        found.append(("pluggy: its import", "import pluggy"))
        found.append(
            (
                "pluggy: entry points, which imports each",
                load + "manager.load_setuptools_entrypoints('genesis_flow.plugins')",
            )
        )
    if find_spec("stevedore"):
        listing = "from stevedore import ExtensionManager\nExtensionManager('genesis_flow.plugins')"
        found.append(("stevedore: its import", "from stevedore import ExtensionManager"))
        found.append(("stevedore: entry points, which imports each", listing))
    found += [
        ("genesis_flow.plugins.entrypoints, as MLflow imports it", "import genesis_flow.plugins.entrypoints"),
        ("the manager: its import", "import genesis_flow.plugins.manager"),
        (LISTED, MANAGER + "manager.list_plugins()"),
        ("the manager: one enabled", MANAGER + "manager.enable('sklearn')"),
        ("MLflow", "import mlflow"),
        (
            "MLflow, and one framework used",
            MANAGER + "import mlflow\nmanager.enable('sklearn').functions()['autolog']()",
        ),
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="processes for each row (5)")
    times = parser.parse_args().times
    if not Path("/proc/self/status").exists():
        raise SystemExit("The peak of memory is read from /proc: run this on Linux.")
    frameworks = installed_frameworks()
    print(f"{'':<58} {'ms':>9} {'MB':>9} {'modules':>8}")
    by_name = {}
    for name, statements in rows(times):
        by_name[name] = measured(name, statements, times)
        print(by_name[name], flush=True)
    eager = "import mlflow\n" + "".join(f"import mlflow.{name}\n" for name in frameworks)
    # A module of MLflow may leave its framework to the functions.
    eager += "from genesis_flow.compat.flavors import flavors\nfrom importlib import import_module\n"
    eager += f"[import_module(each.imports) for each in flavors() if each.name in {frameworks!r}]"
    everything = measured(f"MLflow, and all {len(frameworks)}: {', '.join(frameworks)}"[:58], eager, times)
    print(everything)
    lazy, listed = by_name["MLflow"], by_name[LISTED]
    saved = everything.megabytes - lazy.megabytes
    added = listed.megabytes - by_name[ALONE].megabytes
    print(
        f"\nA program that uses none of {', '.join(frameworks)} takes {lazy.megabytes:.0f} MB in place of "
        f"{everything.megabytes:.0f} MB: {saved:.0f} MB or {saved / everything.megabytes:.0%} less. "
        f"MLflow itself loads them lazily too; the manager with its list adds {added:.0f} MB to Python."
    )


if __name__ == "__main__":
    main()
