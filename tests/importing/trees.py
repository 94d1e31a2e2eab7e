"""Trees that real MLflow versions made (fixtures/make_trees.py), unpacked for a test."""

import tarfile
from pathlib import Path

FOLDER = Path(__file__).parent / "fixtures" / "trees"
VERSIONS = ("1.0.0", "1.30.1", "2.22.0", "3.17.2")

# Where the trees were made, which is what their artifact locations say.
MADE_AT = "/srv/mlruns"


def unpack(version: str, folder: Path, *, relocate: bool = True) -> Path:
    """The tree of an MLflow version as ``folder/mlruns``; relocated, its artifact locations lead there."""
    with tarfile.open(FOLDER / f"{version}.tar.gz") as archive:
        archive.extractall(folder)  # ours, and Python 3.11 before 3.11.4 has no filters
    root = folder / "mlruns"
    for path in root.rglob("*") if relocate else ():
        if path.is_file() and MADE_AT.encode() in (content := path.read_bytes()):
            path.write_bytes(content.replace(MADE_AT.encode(), str(root).encode()))
    return root
