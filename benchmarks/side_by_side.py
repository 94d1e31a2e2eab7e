"""All stores beside each other: every store in a process of its own, taking turns, on one machine.

Each part begins with empty databases, and is written to --output when it is done. Without --parts all of them
are measured, but for `million`, and what is in --output is replaced. With --parts these take the place of
what --output has of them, so an interrupted run goes on with the parts that are missing:

    python benchmarks/side_by_side.py --plugin PYTHON --output docs/benchmarks
    python benchmarks/side_by_side.py --plugin PYTHON --output docs/benchmarks --parts runs,traces
    python benchmarks/side_by_side.py --output docs/benchmarks --parts million

PYTHON is the interpreter of an environment in which mlflow-mongodb is installed: it claims mongodb:// as
we do, so it needs an environment of its own. PostgreSQL takes part where it is installed. Whoever takes no
part, or not at every size, is named in the report.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pymongo
from parts import PARTS, Part
from processes import STORES, subjects
from report import write_report
from timing import Timing, tell

ROOT = Path(__file__).parent.parent


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",") if each]


def names(allowed: tuple[str, ...]) -> Any:
    def parse(text: str) -> list[str]:
        found = [each for each in text.split(",") if each]
        if unknown := [each for each in found if each not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there is only {', '.join(allowed)}")
        return found

    return parse


def limit(text: str) -> tuple[tuple[str, str], int]:
    try:
        part, rest = text.split(":")
        store, size = rest.split("=")
        if part not in PARTS or store not in STORES:
            raise ValueError
        return (part, store), int(size)
    except ValueError:
        message = f"'{text}' is not PART:STORE=SIZE, such as runs:postgresql=20000"
        raise argparse.ArgumentTypeError(message) from None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:<10}{kind.about}" for name, kind in PARTS.items()),
    )
    usual = [name for name in PARTS if name != "million"]
    parser.add_argument("--plugin", metavar="PYTHON", help="an interpreter with mlflow-mongodb")
    parser.add_argument("--parts", type=names(tuple(PARTS)), help=f"else {','.join(usual)}")
    parser.add_argument("--stores", type=names(STORES), default=list(STORES), help="which of the stores")
    parser.add_argument("--output", type=Path, help="folder of the report; else only JSON is printed")
    sizes = (
        ("--sizes", [1_000, 10_000, 20_000, 100_000], "runs to search"),
        ("--million", [10_000, 100_000, 1_000_000], "runs to search in the part of that name"),
        ("--traces", [1_000, 10_000, 200_000], "traces to search"),
        ("--points", [0, 1_000, 10_000, 100_000, 1_000_000], "points of one metric"),
        ("--keys", [0, 20_000], "metrics of one run"),
        ("--memory", [1_000, 100_000], "runs and points that are there in the part of that name"),
        ("--threads", [1, 4, 16, 64], "callers at once"),
    )
    for name, default, about in sizes:
        shown = ",".join(map(str, default))
        parser.add_argument(
            name, type=numbers, default=default, metavar="N,N", help=f"{about}; default {shown}"
        )
    parser.add_argument("--processes", type=int, default=4, help="processes at once; default 4")
    parser.add_argument("--starts", type=int, default=5, help="new processes of each kind; default 5")
    parser.add_argument("--models", type=int, default=100, help="registered models with ten versions each")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a throughput measurement")
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        help="seconds of calls after which a store takes no more turns",
    )
    parser.add_argument(
        "--limit", type=limit, action="append", default=[], metavar="PART:STORE=SIZE", help="a largest size"
    )
    found = parser.parse_args()
    found.limit = dict(found.limit)
    if len(found.memory) != 2:
        parser.error("--memory takes two numbers: runs and points")
    return found


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One part, on databases of its own."""
    notes: list[str] = []
    begin = time.monotonic()
    stores = [each for each in options.stores if not PARTS[name].stores or each in PARTS[name].stores]
    with subjects(stores, options.plugin, notes) as found:
        part = Part(name, options, found, Timing(found, options.patience, notes), notes)
        PARTS[name].work(part)
        versions = {store: subject.ask("versions") for store, subject in found.items()}
    return {
        "command": "python " + " ".join(["benchmarks/side_by_side.py", *_public(sys.argv[1:])]),
        "commit": commit(),
        "machine": machine(),
        "versions": versions,
        "seconds": round(time.monotonic() - begin),
        "notes": list(dict.fromkeys(notes)),
        "operations": part.timing.rows,
        **vars(part.rows),
    }


def machine() -> str:
    model, memory = platform.machine(), ""
    cpu, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpu.exists() and meminfo.exists():
        lines = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
        memory = f", {int(meminfo.read_text().split()[1]) / 2**20:.0f} GB of memory"
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return f"{model}, {os.cpu_count()} cores for clients and servers together{memory}, {python}"


def commit() -> str:
    """Of the code that was measured; marked if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    status = [*git, "status", "--porcelain", "--untracked-files=no", "--", "genesis_flow", "migrations"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    return head.stdout.strip() + (" with changes" if changed else "")


def _public(words: list[str]) -> list[str]:
    """The command without folders of this machine."""
    return [Path(each).name if each.startswith("/") else each for each in words]


def main() -> int:
    options = arguments()
    # Servers are stopped on the way out, whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended; --parts goes on with what is missing"))
    kept = options.output / "result.json" if options.output else None
    result: dict[str, Any] = {"parts": {}}
    if options.parts and kept and kept.exists():
        result = json.loads(kept.read_text())
        if "parts" not in result:
            tell(f"{kept.name} is of an older form: it is replaced")
            result = {"parts": {}}
    failed = []
    for name in options.parts or [each for each in PARTS if each != "million"]:
        tell(f"== {name}: {PARTS[name].about}")
        try:
            result["parts"][name] = measured(name, options)
        except (
            LookupError,
            RuntimeError,
            OSError,
            subprocess.CalledProcessError,
            pymongo.errors.PyMongoError,
        ) as error:
            failed.append(name)
            tell(f"{name} failed, the report goes on without it: {type(error).__name__}: {error}")
            continue
        tell(f"== {name} took {result['parts'][name]['seconds']} s")
        if options.output:
            write_report(result, options.output)
    if not options.output:
        print(json.dumps(result, indent=2))
    if failed:
        tell(f"failed: {', '.join(failed)}; measure them again with --parts {','.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
