"""A mongod that asks for TLS and for users, and the certificates for it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymongo
import pytest

from tests.mongod import Mongod, running_mongod

ROOT_PASSWORD = "r00t-canary"
# All that a URI, a shell or a format string could trip over.
PASSWORD = "c4nary-P@ss/w:rd?%25#{x}"


@dataclass(frozen=True)
class Certificates:
    ca: Path
    other_ca: Path
    server: Path
    client: Path
    subject: str
    """The client's name, as MongoDB writes it."""


def make_certificates(folder: Path) -> Certificates:
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is missing, which the tests of TLS need")
        pytest.skip("openssl is not installed")
    for name in ("ca", "other"):
        _openssl(
            folder,
            f"req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {name}.key -out {name}.pem"
            f" -subj /O=T/CN={name} -addext basicConstraints=critical,CA:TRUE"
            " -addext keyUsage=critical,keyCertSign,cRLSign",
        )
    _leaf(folder, "server", "/O=T/OU=servers/CN=localhost", "serverAuth,clientAuth")
    _leaf(folder, "client", "/O=Users/OU=people/CN=ann", "clientAuth")
    told = _openssl(folder, "x509 -in client.crt -noout -subject -nameopt RFC2253")
    subject = told.removeprefix("subject=").strip()
    paths = (folder / f"{name}.pem" for name in ("ca", "other", "server", "client"))
    return Certificates(*paths, subject)


def _leaf(folder: Path, name: str, subject: str, usage: str) -> None:
    (folder / f"{name}.ext").write_text(
        f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"
    )
    _openssl(folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}")
    _openssl(
        folder,
        f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext"
        f" -out {name}.crt",
    )
    (folder / f"{name}.pem").write_bytes(
        (folder / f"{name}.crt").read_bytes() + (folder / f"{name}.key").read_bytes()
    )


def _openssl(folder: Path, arguments: str) -> str:
    command = ["openssl", *arguments.split()]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class SecureServer:
    mongod: Mongod
    certificates: Certificates

    def root(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient[dict[str, Any]](self.mongod.uri, username="root", password=ROOT_PASSWORD)

    def uri(self, database: str, *, user: str | None = None, password: str = PASSWORD, **options: str) -> str:
        given = {"tls": "true", "tlsCAFile": str(self.certificates.ca), "directConnection": "true", **options}
        asked = "&".join(f"{name}={quote(value, safe='/')}" for name, value in given.items())
        credentials = f"{user}:{quote(password, safe='')}@" if user else ""
        return f"mongodb://{credentials}127.0.0.1:{self.mongod.port}/{database}?{asked}"

    def x509_uri(self, database: str) -> str:
        return self.uri(
            database, authMechanism="MONGODB-X509", tlsCertificateKeyFile=str(self.certificates.client)
        )

    def add_user(self, database: str, name: str, *roles: str, password: str = PASSWORD) -> None:
        granted = [{"role": role, "db": database} for role in roles]
        with self.root() as client:
            client[database].command("createUser", name, pwd=password, roles=granted)


@contextmanager
def secure_mongod(folder: Path) -> Iterator[SecureServer]:
    certificates = make_certificates(folder)
    options = (
        *("--auth", "--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(certificates.server)),
        *("--tlsCAFile", str(certificates.ca), "--tlsAllowConnectionsWithoutCertificates"),
    )
    with running_mongod(replica_set=False, options=options) as mongod:
        with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
            client.admin.command("createUser", "root", pwd=ROOT_PASSWORD, roles=["root"])
        yield SecureServer(mongod, certificates)
