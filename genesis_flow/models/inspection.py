"""Whether a model can be loaded without running code that it brings.

What a loader of MLflow does is decided by the file ``MLmodel``: the module that loads, the format, the class.
Flavors stand in the tables below if their loaders were read and do no more than their format says; all others
are refused. So are files that are code or, wherever they lie, pickles, unless pickles are scanned.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from genesis_flow.models.manifest import names_in
from genesis_flow.models.pickles import Files, leads_out
from genesis_flow.models.policy import SCAN, Policy
from genesis_flow.models.refusal import refused

MLMODEL = "MLmodel"
PYFUNC = "python_function"
Conf = Mapping[str, Any]

# The modules that torch.load may take for pickle; another one is imported by its name, whatever it does.
_PICKLE_MODULES = frozenset({"mlflow.pytorch.pickle_module", "pickle", "cloudpickle"})
_XGBOOST_CLASS = re.compile(r"xgboost\.(core\.Booster|sklearn\.XGB\w+)")
# Where MLflow says where something came from, not where it is.
_ORIGINS = frozenset({"uri", "source_model_name", "model_name"})


class Inspection:
    """Of one model, in a folder that nobody else can change."""

    def __init__(self, folder: Path, model: str, policy: Policy) -> None:
        self._folder = folder
        self._model = model
        self._policy = policy
        self._files = Files(model, policy)

    def check(self) -> None:
        """Refuse the model for the first thing that is wrong with it."""
        flavors = self._flavors()
        pickled: set[str] = set()
        for flavor, conf in flavors.items():
            if flavor != PYFUNC:
                pickled |= self._check_flavor(flavor, conf, flavors.get(PYFUNC, {}))
        self._check_loader(flavors)
        for name in names_in(self._folder):
            self._files.check(self._folder / name, name, is_pickle=name in pickled)

    def _flavors(self) -> dict[str, Conf]:
        try:
            said = yaml.safe_load((self._folder / MLMODEL).read_bytes())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self._refusal(f"{MLMODEL!r} cannot be read ({error})") from error
        flavors = said.get("flavors") if isinstance(said, dict) else None
        if not isinstance(flavors, dict) or not flavors:
            raise self._refusal(f"{MLMODEL!r} names no flavor")
        for place in (flavors, said.get("saved_input_example_info"), said.get("signature")):
            for path in _paths(place):
                if leads_out(path):
                    raise self._refusal(f"{MLMODEL!r} names {path!r}, which is not in the model's folder")
        for flavor, conf in flavors.items():
            if not isinstance(conf, dict):
                raise self._refusal(f"{MLMODEL!r} says nothing of its flavor {flavor!r}")
            if conf.get("code"):
                raise self._refusal(f"it brings code for its flavor {flavor!r} ({conf['code']!r})")
        return flavors

    def _check_loader(self, flavors: Mapping[str, Conf]) -> None:
        if PYFUNC not in flavors:
            return
        loader = flavors[PYFUNC].get("loader_module")
        if loader not in {f"mlflow.{flavor}" for flavor in flavors if flavor in _FLAVORS}:
            raise self._refusal(f"it is loaded by {loader!r}, which runs code that a model brings")

    def _check_flavor(self, flavor: str, conf: Conf, pyfunc: Conf) -> set[str]:
        """The names of files that its loader unpickles."""
        if flavor not in _FLAVORS:
            raise self._refusal(f"nothing says that its flavor {flavor!r} loads without running code")
        return set(_FLAVORS[flavor](self, conf, pyfunc))

    def sklearn(self, conf: Conf, pyfunc: Conf) -> Iterator[str]:
        names = {conf.get("pickled_model"), pyfunc.get("model_path"), pyfunc.get("data")}
        return self._serialized(conf.get("serialization_format", "pickle"), names)

    def lightgbm(self, conf: Conf, _pyfunc: Conf) -> Iterator[str]:
        if conf.get("model_class", "lightgbm.basic.Booster") == "lightgbm.basic.Booster":
            return iter(())
        return self._serialized(conf.get("serialization_format", "cloudpickle"), {conf.get("data")})

    def _serialized(self, form: Any, names: set[Any]) -> Iterator[str]:
        for name in sorted(filter(None, names)):
            if not (self._folder / name).is_file():
                continue
            if form == "skops":
                self._files.check_skops(self._folder / name, name)
            else:
                yield name

    def xgboost(self, conf: Conf, _pyfunc: Conf) -> Iterator[str]:
        made = conf.get("model_class", "xgboost.core.Booster")
        if not _XGBOOST_CLASS.fullmatch(str(made)):
            raise self._refusal(f"its class {made!r} is none of XGBoost")
        return iter(())

    def pickled(self, conf: Conf, pyfunc: Conf) -> Iterator[str]:
        """Flavors whose loaders unpickle one file, and do nothing else."""
        return self._serialized("pickle", {conf.get("data"), pyfunc.get("data")})

    def pytorch(self, conf: Conf, _pyfunc: Conf) -> Iterator[str]:
        data = str(conf.get("model_data", "data"))
        module = self._folder / data / "pickle_module_info.txt"
        if module.is_file() and (name := module.read_text("utf-8", "replace")) not in _PICKLE_MODULES:
            raise self._refusal(f"it wants to be unpickled by the module {name!r}")
        yield f"{data}/model.pth"

    def transformers(self, conf: Conf, _pyfunc: Conf) -> Iterator[str]:
        if "model_binary" not in conf:
            raise self._refusal("it has no weights of its own, and would load them from elsewhere")
        for name in names_in(self._folder):
            if name.endswith(".json"):
                try:
                    said = json.loads((self._folder / name).read_bytes())
                except ValueError as error:
                    raise self._refusal(f"{name!r} cannot be read ({error})") from error
                if isinstance(said, dict) and ("auto_map" in said or "custom_pipelines" in said):
                    raise self._refusal(f"{name!r} names code to be loaded")
        return iter(())

    def plain(self, _conf: Conf, _pyfunc: Conf) -> Iterator[str]:
        """A format that has no code in it, read by the framework itself."""
        return iter(())

    def _refusal(self, what: str) -> Exception:
        pickles = "" if self._policy.pickles == SCAN else " (and pickles are refused)"
        return refused(
            f"{self._model} is not loaded, since models may not run code{pickles}: {what}. If you trust who "
            "logged it, set MLFLOW_ALLOW_MODEL_CODE_EXECUTION=true: then its sums alone are verified."
        )


_FLAVORS: Mapping[str, Callable[[Inspection, Conf, Conf], Iterator[str]]] = {
    "catboost": Inspection.plain,
    "lightgbm": Inspection.lightgbm,
    "onnx": Inspection.plain,
    "pmdarima": Inspection.pickled,
    "prophet": Inspection.plain,
    "pytorch": Inspection.pytorch,
    "sklearn": Inspection.sklearn,
    "statsmodels": Inspection.pickled,
    "transformers": Inspection.transformers,
    "xgboost": Inspection.xgboost,
}


def _paths(said: Any, key: str = "") -> Iterator[str]:
    """All strings that may be paths."""
    if isinstance(said, dict):
        for name, inner in said.items():
            yield from _paths(inner, str(name))
    elif isinstance(said, list):
        for inner in said:
            yield from _paths(inner, key)
    elif isinstance(said, str) and key not in _ORIGINS and not said.lstrip().startswith(("{", "[")):
        yield said
