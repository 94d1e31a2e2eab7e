"""A plot of each operation that was measured at several sizes: cost against size."""

from pathlib import Path
from typing import Any

from processes import OURS, STORES

COLOURS = {
    OURS: "#0b7a4b",
    "mlflow-mongodb": "#d9822b",
    "sqlite": "#6b7a90",
    "postgresql": "#32678f",
    "pymongo": "#b8b8b8",
}
# Both hold operations on growing numbers of runs, so they share their plots.
TOGETHER = {"million": "runs"}

Lines = dict[str, dict[int, float]]
Plot = tuple[str, str]
"""Title and file."""


def make_plots(parts: dict[str, dict[str, Any]], folder: Path) -> list[Plot]:
    """None where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    made = []
    for (part, operation, unit), lines in _lines(parts).items():
        if max(len(each) for each in lines.values()) > 1:
            name = f"{part}-{_file_name(operation)}.png"
            _draw(operation, unit, lines, folder / name)
            made.append((f"{operation}, by {unit}", name))
    kept = {name for _, name in made}
    for path in folder.glob("*.png"):
        if path.name not in kept:
            path.unlink()
    return made


def _lines(parts: dict[str, dict[str, Any]]) -> dict[tuple[str, str, str], Lines]:
    found: dict[tuple[str, str, str], Lines] = {}
    for name in sorted(parts, key=lambda each: each in TOGETHER):
        for row in parts[name]["operations"]:
            if row["size"]:
                lines = found.setdefault((TOGETHER.get(name, name), row["operation"], row["unit"]), {})
                lines.setdefault(row["store"], {}).setdefault(row["size"], row["p50"])
    return found


def _file_name(operation: str) -> str:
    words = "".join(each if each.isalnum() else " " for each in operation).split()
    return "-".join(words)


def _draw(title: str, unit: str, lines: Lines, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2))
    for store in (each for each in STORES if each in lines):
        points = sorted(lines[store].items())
        axes.plot(*zip(*points, strict=True), marker="o", label=store, color=COLOURS[store])
    axes.set(xscale="log", yscale="log", xlabel=unit, ylabel="ms, median", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)
