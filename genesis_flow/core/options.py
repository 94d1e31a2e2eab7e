"""Every setting there is: its key in ``mlflow.conf``, its variables, its type and its default.

``genesis-flow config`` shows this table. Who needs one of these settings and no store asks for it by name:
``options.value("plugin_paths")``.
"""

from __future__ import annotations

import configparser
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import MASK, mask

if TYPE_CHECKING:
    from genesis_flow.core.configfile import ConfigFile

Kind = Literal["text", "boolean", "number", "seconds", "words", "paths", "secret"]

SAFE_SCHEMES = (
    *("file", "s3", "gs", "r2", "b2", "wasbs", "abfss", "azure", "dbfs", "hdfs", "viewfs"),
    "mlflow-artifacts",
)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting. An option without a section cannot stand in the file, one without variables only there."""

    name: str
    says: str
    section: str = ""
    variables: tuple[str, ...] = ()
    kind: Kind = "text"
    default: Any = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    in_uri: str = ""
    """The option of the store URI that sets it."""


def _tracking(name: str, says: str, *variables: str, **more: Any) -> Option:
    return Option(name, says, "tracking", variables, **more)


def _security(name: str, says: str, *variables: str, **more: Any) -> Option:
    return Option(name, says, "security", variables, **more)


def _plugins(name: str, says: str, *variables: str, **more: Any) -> Option:
    return Option(name, says, "plugins", variables, **more)


def _variable(name: str, says: str, kind: Kind = "text", default: str | None = None) -> Option:
    return Option(name, says, variables=(name,), kind=kind, default=default)


OPTIONS: tuple[Option, ...] = (
    _tracking(
        "uri",
        "where runs and models are kept",
        *("MLFLOW_TRACKING_URI", "GENESIS_FLOW_MONGODB_URI", "GENESIS_FLOW_COSMOS_DB_URI"),
        default="genesis://",
    ),
    _tracking(
        "default_artifact_root",
        "where files of new experiments are kept",
        *("_MLFLOW_SERVER_ARTIFACT_ROOT", "GENESIS_FLOW_ARTIFACT_ROOT", "MLFLOW_DEFAULT_ARTIFACT_ROOT"),
    ),
    _tracking("username", "user of the database", "GENESIS_FLOW_MONGODB_USERNAME"),
    _tracking(
        "password_file",
        "the user's password",
        *("GENESIS_FLOW_MONGODB_PASSWORD", "GENESIS_FLOW_MONGODB_PASSWORD_FILE"),
        "GENESIS_FLOW_MONGODB_PASSWORD_COMMAND",
        kind="secret",
    ),
    _tracking(
        "collection_prefix", "put before names of collections", "MONGODB_COLLECTION_PREFIX", default=""
    ),
    _tracking(
        "max_pool_size",
        "connections in the pool",
        "MONGODB_MAX_POOL_SIZE",
        in_uri="maxPoolSize",
    ),
    _tracking(
        "server_selection_timeout",
        "milliseconds to wait for a server",
        "MONGODB_SERVER_SELECTION_TIMEOUT",
        in_uri="serverSelectionTimeoutMS",
    ),
    _tracking("timeout", "seconds that a call may take", "GENESIS_FLOW_TIMEOUT", in_uri="timeoutMS"),
    _tracking("open_timeout", "seconds to open a store", "GENESIS_FLOW_OPEN_TIMEOUT"),
    _tracking(
        "watch_interval",
        "seconds between two looks of a watch where the server streams no changes",
        "GENESIS_FLOW_WATCH_INTERVAL",
        kind="seconds",
        default=1.0,
    ),
    _tracking("profile", "full, or portable for Azure Cosmos DB (RU)", "GENESIS_FLOW_PROFILE"),
    Option("write_concern", "who must have a write before it counts", in_uri="w"),
    Option("journal", "whether it must be in the journal", in_uri="journal"),
    Option("retry_writes", "whether the driver may send a write twice", in_uri="retryWrites"),
    Option("max_idle_time_ms", "milliseconds that an idle connection stays", in_uri="maxIdleTimeMS"),
    _security(
        "audit",
        "whether changes leave a record of who made them",
        "GENESIS_FLOW_AUDIT",
        kind="boolean",
        default=False,
    ),
    _security(
        "enable_input_validation",
        "whether input is looked at more strictly than MLflow does",
        "MLFLOW_STRICT_INPUT_VALIDATION",
        kind="boolean",
        default=False,
    ),
    _security("max_param_value_length", "longest param value", kind="number", default=6000, most=6000),
    _security("max_name_length", "strict input: longest name, key and id", kind="number", default=256),
    _security("max_tag_value_length", "strict input: longest value of a tag", kind="number", default=5000),
    _security("max_text_length", "strict input: longest description", kind="number", default=100_000),
    _security(
        "allowed_artifact_schemes",
        "strict input: schemes of artifact locations",
        kind="words",
        default=SAFE_SCHEMES,
    ),
    _security(
        "enable_secure_model_loading",
        "whether only models that are what was logged, and run no code, are loaded",
        "MLFLOW_ENABLE_SECURE_MODEL_LOADING",
        kind="boolean",
        default=False,
    ),
    _security(
        "model_manifests",
        "whether models that are logged get a manifest; by default in stores of genesis_flow",
        "GENESIS_FLOW_MODEL_MANIFESTS",
        kind="boolean",
    ),
    _security(
        "model_pickles",
        "pickles in models: refuse or scan",
        "GENESIS_FLOW_MODEL_PICKLES",
        default="refuse",
        choices=("refuse", "scan"),
    ),
    _security(
        "trusted_model_types",
        "names that pickles and skops files may use",
        "GENESIS_FLOW_TRUSTED_MODEL_TYPES",
        kind="words",
        default=(),
    ),
    _security(
        "model_public_keys",
        "public keys, one of which must have signed a model",
        "GENESIS_FLOW_MODEL_PUBLIC_KEYS",
        kind="paths",
        default=(),
    ),
    _plugins("auto_discover", "whether plugins are found by themselves", kind="boolean", default=True),
    _plugins("enable_builtin", "whether MLflow's frameworks are listed", kind="boolean", default=True),
    _plugins(
        "plugin_paths",
        "folders in which plugins are looked for",
        "GENESIS_FLOW_PLUGIN_PATHS",
        kind="paths",
        default=(),
    ),
    _plugins(
        "import_timeout",
        "seconds that a plugin may take in the process in which it is tried out",
        "GENESIS_FLOW_PLUGIN_TIMEOUT",
        kind="seconds",
        default=60.0,
    ),
    _variable("GENESIS_FLOW_CONF", "the mlflow.conf to read"),
    _variable("GENESIS_FLOW_MONGOD", "the mongod that genesis:// starts"),
    _variable(
        "GENESIS_FLOW_EMBEDDED_LINGER", "seconds that an embedded MongoDB without users stays", default="5"
    ),
    _variable(
        "GENESIS_FLOW_JOBS_USER",
        "the user as whom jobs by schedule call the gateway of a server with a login",
    ),
    _variable(
        "GENESIS_FLOW_METRICS",
        "whether a process counts what it asks of the database; the server's do with --metrics",
        "boolean",
    ),
    _variable(
        "GENESIS_FLOW_METRICS_ADDRESS",
        "host and port at which genesis-flow server --metrics answers Prometheus",
        default="127.0.0.1:9464",
    ),
    _variable("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "whether a model may run code that it brings"),
    _variable("GENESIS_FLOW_MODEL_KEY_PASSWORD", "password of the key that signs models", "secret"),
    _variable("GENESIS_MIGRATE_CONFIG", "the alembic_like.ini to read"),
    _variable("MLFLOW_CRYPTO_KEK_PASSPHRASE", "passphrase of the gateway's secrets", "secret"),
    _variable("GENESIS_FLOW_NEXT_KEK_PASSPHRASE", "the passphrase that they get next", "secret"),
    _variable("AZURE_STORAGE_CONNECTION_STRING", "account of azure:// artifacts", "secret"),
    _variable("AZURE_STORAGE_ACCESS_KEY", "its key", "secret"),
    _variable("AZURE_STORAGE_SAS_TOKEN", "or a token of it", "secret"),
    _variable("AZURE_STORAGE_ACCOUNT", "its name, where the URI has none"),
)
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Reading:
    """A value and where it came from."""

    value: Any
    source: str = "default"

    @property
    def place(self) -> str:
        """The source as an error names it."""
        return self.source.removeprefix("environment ")


def value(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """The value of a setting as the environment and ``mlflow.conf`` say it, now."""
    from genesis_flow.core import configfile

    environ = os.environ if environ is None else environ
    return read(BY_NAME[name], environ, configfile.load(configfile.locate(environ))).value


def read(option: Option, environ: Mapping[str, str], conf: ConfigFile) -> Reading:
    """The value of an option in its type, and where it came from; a bad value is an error that names it."""
    found = text_of(option, environ, conf)
    return Reading(option.default if found.value is None else _typed(option, found), found.source)


def text_of(option: Option, environ: Mapping[str, str], conf: ConfigFile) -> Reading:
    """As it stands in the environment or the file; None if it stands in neither."""
    for variable in option.variables:
        if text := environ.get(variable, "").strip():
            return Reading(text, f"environment {variable}")
    if option.section and (in_file := conf.get(option.section, option.name)):
        return Reading(in_file, conf.source(option.section, option.name))
    return Reading(None)


def as_boolean(text: str, source: str) -> bool:
    """``true``, ``false`` and their usual synonyms."""
    found = configparser.ConfigParser.BOOLEAN_STATES.get(text.lower())
    if found is None:
        raise invalid(f"{source} must be true or false, not {mask(text)!r}.")
    return found


def _length(text: str, source: str, most: int | None) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1 or (most and int(text) > most):
        allowed = f"from 1 to {most}, MLflow's own limit" if most else "above 0"
        raise invalid(f"{source} must be a whole number {allowed}, not {mask(text)!r}.")
    return int(text)


def _seconds(text: str, source: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise invalid(f"{source} must be a number of seconds from 0 on, not {mask(text)!r}.")
    return value


def _typed(option: Option, found: Reading) -> Any:
    text = found.value
    if option.kind == "boolean":
        return as_boolean(text, found.place)
    if option.kind == "number":
        return _length(text, found.place, option.most)
    if option.kind == "seconds":
        return _seconds(text, found.place)
    if option.choices and text.lower() not in option.choices:
        raise invalid(f"{found.place} must be one of {', '.join(option.choices)}, not {mask(text)!r}.")
    if option.kind == "words":
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if option.kind == "paths":
        return tuple(
            path.strip() for path in text.replace("\n", os.pathsep).split(os.pathsep) if path.strip()
        )
    return text


def shown(option: Option, found: Any) -> Any:
    """The value as people may see it."""
    if found is None or found == "":
        return found
    if option.kind == "secret":
        return MASK
    if isinstance(found, tuple):
        return [mask(str(each)) for each in found]
    return mask(found) if isinstance(found, str) else found
