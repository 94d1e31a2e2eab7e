"""Models that would run code are refused, whatever it is hidden in; those that cannot are not."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.models.inspection import Inspection
from genesis_flow.models.policy import SCAN, Policy
from tests.models.folders import (
    Note,
    malicious,
    model_folder,
    nested,
    sklearn_flavors,
    torch_file,
    torch_flavors,
    zipped,
)

NOTE = "tests.models.folders.Note"
SCANNED = Policy(pickles=SCAN)
PICKLE_MODULE = {"data/pickle_module_info.txt": "mlflow.pytorch.pickle_module"}

scans = pytest.mark.skipif(
    find_spec("picklescan") is None and not os.environ.get("CI"), reason="pip install genesis-flow[models]"
)


def refusal(folder: Path, policy: Policy = SCANNED) -> str:
    with pytest.raises(MlflowException) as refused:
        Inspection(folder, "models:/m-1", policy).check()
    assert refused.value.error_code == "PERMISSION_DENIED"
    return str(refused.value.message)


def accepted(folder: Path, policy: Policy = SCANNED) -> None:
    Inspection(folder, "models:/m-1", policy).check()


def joblib_dump(packed: int | tuple[str, int]) -> Callable[[Path], bytes]:
    def dump(mark: Path) -> bytes:
        joblib = pytest.importorskip("joblib")
        from tests.models.folders import Runs

        made = io.BytesIO()
        joblib.dump({"model": Runs(mark)}, made, compress=packed)
        return made.getvalue()

    return dump


def tarred(content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("inner/model.pkl")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def object_array(mark: Path) -> bytes:
    """As numpy.save writes an array of Python objects."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + malicious(mark)


MALICIOUS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "plain": ("model.pkl", malicious),
    "old protocol": ("model.pkl", lambda mark: malicious(mark, 0)),
    "under another name": ("weights.dat", malicious),
    "old protocol under another name": ("weights.dat", lambda mark: malicious(mark, 0)),
    "nested": ("model.pkl", nested),
    "zipped": ("model.zip", lambda mark: zipped({"a/model.pkl": malicious(mark)})),
    "zipped under another name": ("weights", lambda mark: zipped({"a/model": malicious(mark)})),
    "zipped twice": ("model.zip", lambda mark: zipped({"in.zip": zipped({"b.pkl": malicious(mark)})})),
    "in front of an archive": ("model.pkl", lambda mark: malicious(mark) + zipped({"a.txt": b"harmless"})),
    "gzip": ("model.pkl.gz", lambda mark: gzip.compress(malicious(mark, 0))),
    "bzip2": ("model.pkl.bz2", lambda mark: bz2.compress(malicious(mark))),
    "xz": ("model.pkl.xz", lambda mark: lzma.compress(malicious(mark))),
    "tar": ("model.tar", lambda mark: tarred(malicious(mark))),
    "tar.gz": ("model.tar.gz", lambda mark: gzip.compress(tarred(malicious(mark)))),
    "joblib": ("model.joblib", joblib_dump(0)),
    "joblib, zlib": ("model.joblib", joblib_dump(3)),
    "joblib, zlib, under another name": ("model.dat", joblib_dump(3)),
    "joblib, lzma": ("model.joblib", joblib_dump(("lzma", 3))),
    "array of objects": ("model.npy", object_array),
    "arrays of objects": ("model.npz", lambda mark: zipped({"a.npy": object_array(mark)})),
    "after another pickle": ("model.pkl", lambda mark: pickle.dumps({"a": 1}) + malicious(mark)),
    "cut off": ("model.pkl", lambda mark: malicious(mark)[:-1]),
}


@scans
@pytest.mark.parametrize("kind", MALICIOUS)
@pytest.mark.parametrize("policy", [Policy(), SCANNED], ids=["refused", "scanned"])
def test_known_malicious_pickles_are_refused(kind: str, policy: Policy, tmp_path: Path) -> None:
    name, made = MALICIOUS[kind]
    mark = tmp_path / "it-ran"
    folder = model_folder(tmp_path / "model", sklearn_flavors(name), {name: made(mark)})
    assert name in refusal(folder, policy)
    assert not mark.exists()


@scans
@pytest.mark.parametrize("policy", [Policy(), SCANNED], ids=["refused", "scanned"])
def test_torch_files_are_looked_into(policy: Policy, tmp_path: Path) -> None:
    for number, content in enumerate((torch_file(malicious(tmp_path / "it-ran")), malicious(tmp_path))):
        files = {"data/model.pth": content, **PICKLE_MODULE}
        folder = model_folder(tmp_path / str(number), torch_flavors(), files)
        assert "data/model.pth" in refusal(folder, policy)


@scans
def test_a_pickle_of_known_names_passes_if_pickles_are_scanned(tmp_path: Path) -> None:
    weights = pickle.dumps(OrderedDict(bias=[0.5]))
    torch = model_folder(
        tmp_path / "torch", torch_flavors(), {"data/model.pth": torch_file(weights), **PICKLE_MODULE}
    )
    accepted(torch)
    assert "is a pickle" in refusal(torch, Policy())


@scans
def test_a_name_that_nobody_knows_is_refused_until_it_is_trusted(tmp_path: Path) -> None:
    from fractions import Fraction

    folder = model_folder(tmp_path, sklearn_flavors("model.pkl"), {"model.pkl": pickle.dumps(Fraction(1, 2))})
    assert "fractions.Fraction" in refusal(folder)
    accepted(folder, Policy(pickles=SCAN, types=frozenset({"fractions.Fraction"})))


@scans
def test_a_name_that_runs_code_cannot_be_trusted(tmp_path: Path) -> None:
    content = malicious(tmp_path / "it-ran")
    folder = model_folder(tmp_path / "model", sklearn_flavors("model.pkl"), {"model.pkl": content})
    trusting = Policy(pickles=SCAN, types=frozenset({"posix.system", "os.system", "nt.system"}))
    assert "can run code" in refusal(folder, trusting)


def test_without_the_scanner_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picklescan.scanner", None)
    folder = model_folder(tmp_path, sklearn_flavors("model.pkl"), {"model.pkl": pickle.dumps([1])})
    assert "genesis-flow[models]" in refusal(folder)


def linked(name: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return made.getvalue()


ESCAPES: dict[str, tuple[str, bytes]] = {
    "zip": ("env.zip", zipped({"../../evil": b"x"})),
    "zip, absolute": ("env.zip", zipped({"/etc/cron.d/evil": b"x"})),
    "zip, as Windows reads it": ("env.zip", zipped({"..\\evil": b"x"})),
    "zip in zip": ("env.zip", zipped({"in.zip": zipped({"../evil": b"x"})})),
    "tar, link": ("env.tar", linked("etc")),
    "tar.gz, link": ("env.tar.gz", gzip.compress(linked("etc"))),
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_archives_that_lead_out_of_their_folder_are_refused(kind: str, tmp_path: Path) -> None:
    name, content = ESCAPES[kind]
    folder = model_folder(
        tmp_path, {"onnx": {"data": "model.onnx"}}, {"model.onnx": b"\x08\x07", name: content}
    )
    assert name in refusal(folder)


@pytest.mark.parametrize("path", ["../other/model.xgb", "/etc/passwd", "a/../../b", "..\\b", "C:\\b"])
def test_a_description_that_leads_out_of_its_folder_is_refused(path: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "a", {"xgboost": {"data": path}}, {"model.xgb": b"{}"})
    assert repr(path) in refusal(folder)
    example = {"artifact_path": path, "type": "ndarray"}
    folder = model_folder(tmp_path / "b", {"xgboost": {"data": "m"}}, {}, saved_input_example_info=example)
    assert repr(path) in refusal(folder)


TAMPERED: dict[str, tuple[dict[str, Any], dict[str, bytes | str], str]] = {
    "another loader": (
        {"python_function": {"loader_module": "os", "data": "model.xgb"}, "xgboost": {"data": "model.xgb"}},
        {"model.xgb": "{}"},
        "'os'",
    ),
    "the loader of pickles": (
        {"python_function": {"loader_module": "mlflow.pyfunc.model", "python_model": "a.json"}},
        {"a.json": "{}"},
        "'mlflow.pyfunc.model'",
    ),
    "the loader of another flavor": (
        {"python_function": {"loader_module": "mlflow.sklearn", "model_path": "a"}, "xgboost": {"data": "a"}},
        {"a": "{}"},
        "'mlflow.sklearn'",
    ),
    "a class of somebody": (
        {"xgboost": {"data": "model.xgb", "model_class": "subprocess.Popen"}},
        {"model.xgb": "{}"},
        "'subprocess.Popen'",
    ),
    "code that it brings": (
        {"xgboost": {"data": "model.xgb", "code": "code"}},
        {"model.xgb": "{}", "code/evil.txt": ""},
        "'code'",
    ),
    "a file of code": (
        {"xgboost": {"data": "model.xgb"}},
        {"model.xgb": "{}", "a/evil.py": ""},
        "'a/evil.py'",
    ),
    "a flavor nobody read": ({"spacy": {"data": "model"}}, {"model/config.cfg": ""}, "'spacy'"),
    "a module that unpickles": (
        torch_flavors(),
        {"data/model.pth": torch_file(pickle.dumps({})), "data/pickle_module_info.txt": "evil"},
        "'evil'",
    ),
    "weights from elsewhere": ({"transformers": {"source_model_name": "a/b"}}, {}, "no weights"),
    "code of transformers": (
        {"transformers": {"model_binary": "model"}},
        {"model/config.json": '{"auto_map": {"AutoModel": "evil--modeling.Evil"}}'},
        "'model/config.json'",
    ),
    "no flavor": ({}, {}, "no flavor"),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_tampered_flavors_are_refused(kind: str, tmp_path: Path) -> None:
    flavors, files, said = TAMPERED[kind]
    assert said in refusal(model_folder(tmp_path, flavors, files))


WITHOUT_CODE: dict[str, tuple[dict[str, Any], dict[str, bytes | str]]] = {
    "xgboost": (
        {
            "python_function": {"loader_module": "mlflow.xgboost", "data": "model.xgb", "env": "conda.yaml"},
            "xgboost": {"data": "model.xgb", "model_class": "xgboost.sklearn.XGBClassifier", "code": None},
        },
        {
            "model.xgb": "{}",
            "conda.yaml": "name: x",
            "requirements.txt": "xgboost",
            "input_example.json": "[]",
        },
    ),
    "lightgbm": (
        {"lightgbm": {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}},
        {"model.lgb": "t"},
    ),
    "catboost": ({"catboost": {"data": "model.cb", "save_format": "cbm"}}, {"model.cb": b"CBM1\x00"}),
    "onnx": (
        {"onnx": {"data": "model.onnx", "providers": ["CPUExecutionProvider"]}},
        {"model.onnx": b"\x08\x07"},
    ),
    "prophet": ({"prophet": {"data": "model.pr"}}, {"model.pr": "{}"}),
    "safetensors": (
        {
            "python_function": {"loader_module": "mlflow.transformers"},
            "transformers": {"model_binary": "model", "source_model_name": "org/name"},
        },
        {
            "model/config.json": "{}",
            "model/model.safetensors": b"\x02\0\0\0\0\0\0\0{}",
            "model/vocab.txt": "x",
        },
    ),
}


@pytest.mark.parametrize("kind", WITHOUT_CODE)
def test_formats_without_code_pass(kind: str, tmp_path: Path) -> None:
    accepted(model_folder(tmp_path, *WITHOUT_CODE[kind]), Policy())


def test_skops_passes_and_its_own_list_of_trusted_types_counts_for_nothing(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LinearRegression

    flavors = sklearn_flavors("model.skops", "skops", skops_trusted_types=[NOTE])
    known, unknown = LinearRegression(), LinearRegression()
    unknown.note_ = Note()
    accepted(model_folder(tmp_path / "a", flavors, {"model.skops": skops.dumps(known)}), Policy())
    folder = model_folder(tmp_path / "b", flavors, {"model.skops": skops.dumps(unknown)})
    assert NOTE in refusal(folder, Policy())
    accepted(folder, Policy(types=frozenset({NOTE})))
