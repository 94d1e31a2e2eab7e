"""Make a replica set of one member, and the user that the server has. Nothing is done twice.

deploy/compose.yaml runs it before the server; it reads

    MONGODB_ADDRESS               the member, as all the others reach it: mongodb:27017
    MONGODB_ROOT_PASSWORD_FILE    of the user root, whom the image has made
    MLFLOW_PASSWORD_FILE          the password that the user mlflow is to have
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import OperationFailure

DATABASE, USER = "mlflow", "mlflow"
REPLICA_SET = "rs0"
_SECONDS_TO_BECOME_PRIMARY = 60
_NOT_YET_INITIALIZED = 94
_USER_NOT_FOUND = 11


def main() -> None:
    address = os.environ["MONGODB_ADDRESS"]
    root = secret("MONGODB_ROOT_PASSWORD_FILE")
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        f"mongodb://{address}/?directConnection=true", username="root", password=root
    )
    with client:
        initiate(client, address)
        make_user(client, secret("MLFLOW_PASSWORD_FILE"))


def secret(variable: str) -> str:
    return Path(os.environ[variable]).read_text(encoding="utf-8").strip()


def initiate(client: pymongo.MongoClient[dict[str, Any]], address: str) -> None:
    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        members = [{"_id": 0, "host": address}]
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        print(f"{REPLICA_SET}: made, of {address}")
    deadline = time.monotonic() + _SECONDS_TO_BECOME_PRIMARY
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            sys.exit(f"{address} did not become primary; look at the log of mongod.")
        time.sleep(0.2)


def make_user(client: pymongo.MongoClient[dict[str, Any]], password: str) -> None:
    """Or give the one that is there this password."""
    try:
        client[DATABASE].command("updateUser", USER, pwd=password)
        print(f"{USER}: there already")
    except OperationFailure as error:
        if error.code != _USER_NOT_FOUND:
            raise
        client[DATABASE].command("createUser", USER, pwd=password, roles=["readWrite"])
        print(f"{USER}: made")


if __name__ == "__main__":
    main()
