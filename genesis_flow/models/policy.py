"""What a model must be to be loaded: from the environment and ``[security]`` of ``mlflow.conf``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from genesis_flow.core import configfile
from genesis_flow.core.configfile import ConfigFile, as_boolean
from genesis_flow.core.errors import invalid

ENV_SECURE = "MLFLOW_ENABLE_SECURE_MODEL_LOADING"
ENV_CODE = "MLFLOW_ALLOW_MODEL_CODE_EXECUTION"
ENV_PICKLES = "GENESIS_FLOW_MODEL_PICKLES"
ENV_TYPES = "GENESIS_FLOW_TRUSTED_MODEL_TYPES"
ENV_KEYS = "GENESIS_FLOW_MODEL_PUBLIC_KEYS"
ENV_MANIFESTS = "GENESIS_FLOW_MODEL_MANIFESTS"

REFUSE, SCAN = "refuse", "scan"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is asked of a model."""

    secure: bool = False
    """Whether MLflow's own calls ask it, too."""
    code: bool = False
    """Whether a model may run code that it brings: then only its sums and its signature are looked at."""
    pickles: str = REFUSE
    types: frozenset[str] = frozenset()
    """Names that pickles and skops files may use, besides those that are known to be harmless."""
    keys: tuple[Path, ...] = ()
    """If there are any, a model must be signed with one of them."""
    manifests: bool | None = None
    """Whether manifests are written when models are logged; None: into stores of genesis_flow."""

    @classmethod
    def current(cls, environ: Mapping[str, str] | None = None, conf: Path | None = None) -> Policy:
        """As the settings are now."""
        environ = os.environ if environ is None else environ
        return _Reading(environ, configfile.load(configfile.locate(environ, conf))).policy()

    def without_code(self) -> Policy:
        return replace(self, code=False)


class _Reading:
    def __init__(self, environ: Mapping[str, str], conf: ConfigFile) -> None:
        self._environ = environ
        self._conf = conf

    def policy(self) -> Policy:
        pickles, source = self._text(ENV_PICKLES, "model_pickles")
        if (pickles := (pickles or REFUSE).lower()) not in (REFUSE, SCAN):
            raise invalid(f"{source} must be {REFUSE} or {SCAN}, not {pickles!r}.")
        types, _ = self._text(ENV_TYPES, "trusted_model_types")
        keys, _ = self._text(ENV_KEYS, "model_public_keys")
        code = self._environ.get(ENV_CODE, "").strip()
        return Policy(
            secure=self._switch(ENV_SECURE, "enable_secure_model_loading") or False,
            code=bool(code) and as_boolean(code, ENV_CODE),
            pickles=pickles,
            types=frozenset(_listed(types, ",")),
            keys=tuple(Path(key).expanduser() for key in _listed(keys, os.pathsep)),
            manifests=self._switch(ENV_MANIFESTS, "model_manifests"),
        )

    def _switch(self, variable: str, key: str) -> bool | None:
        text, source = self._text(variable, key)
        return None if text is None else as_boolean(text, source)

    def _text(self, variable: str, key: str) -> tuple[str | None, str]:
        if text := self._environ.get(variable, "").strip():
            return text, variable
        return self._conf.get("security", key), self._conf.source("security", key)


def _listed(text: str | None, separator: str) -> list[str]:
    return [part.strip() for part in (text or "").split(separator) if part.strip()]
