"""Small trees written by hand, to be damaged."""

import shutil
from collections.abc import Iterable
from pathlib import Path

EXPERIMENT = "3"
NAME = "weather"


def run_id(number: int) -> str:
    return f"{number:031x}e"


class Tree:
    """An ``mlruns`` folder in the layout of MLflow's file store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def experiment(self, number: str = EXPERIMENT, name: str = NAME, folder: str | None = None) -> Path:
        path = self.root / (folder or number)
        path.mkdir(parents=True)
        (path / "meta.yaml").write_text(
            f"artifact_location: s3://bucket/{number}\ncreation_time: 1700000000000\n"
            f"experiment_id: '{number}'\nlast_update_time: 1700000000001\nlifecycle_stage: active\n"
            f"name: {name}\n"
        )
        return path

    def run(
        self, number: int, experiment: str = EXPERIMENT, *, points: int = 3, start: int = 1_700_000_000_000
    ) -> Path:
        key = run_id(number)
        path = self.root / experiment / key
        for folder in ("params", "tags", "metrics", "artifacts"):
            (path / folder).mkdir(parents=True)
        (path / "meta.yaml").write_text(
            f"artifact_uri: s3://bucket/{experiment}/{key}/artifacts\nend_time: {start + 9}\n"
            f"entry_point_name: ''\nexperiment_id: '{experiment}'\nlifecycle_stage: active\nrun_id: {key}\n"
            f"run_name: run-{number}\nrun_uuid: {key}\nsource_name: ''\nsource_type: 4\nsource_version: ''\n"
            f"start_time: {start}\nstatus: 3\ntags: []\nuser_id: someone\n"
        )
        (path / "params" / "lr").write_text("0.1")
        (path / "tags" / "mlflow.runName").write_text(f"run-{number}")
        self.log(path, "loss", range(points))
        return path

    @staticmethod
    def log(run: Path, key: str, steps: Iterable[int]) -> None:
        with (run / "metrics" / key).open("a") as file:
            file.writelines(f"{1_700_000_000_000 + step} {step / 7} {step}\n" for step in steps)

    def model(self, name: str, versions: int = 1) -> Path:
        path = self.root / "models" / name
        path.mkdir(parents=True)
        times = "creation_timestamp: 1700000000000\nlast_updated_timestamp: 1700000000005\n"
        (path / "meta.yaml").write_text(f"{times}description: null\nname: {name}\n")
        for version in range(1, versions + 1):
            (path / f"version-{version}").mkdir()
            (path / f"version-{version}" / "meta.yaml").write_text(
                f"{times}current_stage: None\nname: {name}\nrun_id: ''\nsource: s3://bucket/{version}\n"
                f"status: READY\nversion: {version}\n"
            )
        return path

    def copy_to(self, root: Path) -> "Tree":
        shutil.copytree(self.root, root)
        return Tree(root)


def small_tree(root: Path, runs: int = 3) -> Tree:
    tree = Tree(root)
    tree.experiment()
    for number in range(runs):
        tree.run(number)
    tree.model("forecast", versions=2)
    return tree
