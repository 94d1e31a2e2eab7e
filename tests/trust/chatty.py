"""A program of a user who logs everything at DEBUG, prints everything and makes every mistake."""

import faulthandler
import json
import logging
import os
import pickle
import sys
import traceback

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for name in (
    "pymongo",
    "pymongo.command",
    "pymongo.connection",
    "pymongo.serverSelection",
    "pymongo.topology",
):
    logging.getLogger(name).setLevel(logging.DEBUG)
faulthandler.enable()

import mlflow  # noqa: E402
from mlflow.entities import Param, RunTag  # noqa: E402

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore  # noqa: E402
from genesis_flow.core.config_alias import MongoDBConfig  # noqa: E402
from genesis_flow.core.settings import Settings  # noqa: E402


def show(*things: object) -> None:
    for thing in things:
        print(repr(thing), str(thing), f"{thing}", getattr(thing, "__dict__", ""))


def attempt(call: object, *arguments: object) -> None:
    try:
        call(*arguments)  # type: ignore[operator]
    except Exception as error:
        traceback.print_exc()
        show(error, error.__cause__, error.args)
        print(pickle.dumps(str(error)))


def main() -> None:
    uri, wrong, away = json.loads(os.environ["URIS"])
    settings = Settings.resolve(uri)
    store, registry = MongoDBStore(uri), MongoDBModelRegistryStore(uri)
    show(settings, settings.sources, settings.cache_key, store, registry, store.client, store.db_uri)
    show(MongoDBConfig.get_connection_config())
    print(MongoDBConfig.validate_configuration())
    mlflow.set_tracking_uri(os.environ.get("TRACKING", uri))
    print(mlflow.get_tracking_uri() if "TRACKING" in os.environ else "")
    with mlflow.start_run() as run:
        mlflow.log_param("p", 1)
        mlflow.log_metric("m", 1.0)
        mlflow.set_tag("t", "v")
        show(run.info, run.data)
    registry.create_registered_model("m")
    attempt(store.get_run, "no such run")
    attempt(store.log_param, run.info.run_id, Param("p", "2"))
    attempt(store.set_tag, run.info.run_id, RunTag("\0", "x"))
    attempt(registry.create_registered_model, "m")
    attempt(store.client.admin.command, "replSetGetStatus")
    attempt(store.client["other"].command, "dbStats")
    for bad in (
        wrong,
        away,
        uri.replace("tls=true", "tls=maybe"),
        uri.replace("127.0.0.1", "no host"),
        uri + "&x=y",
    ):
        attempt(lambda bad=bad: MongoDBStore(bad).search_experiments())
    pickle.loads(pickle.dumps(store)).search_experiments()
    print(pickle.dumps(store), pickle.dumps(settings))


main()
