"""From the environment to a client of the account; docs/artifacts.md has the table of variables."""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from genesis_flow.artifacts.azure_uri import ACCOUNT_NAME, AzureUri
from genesis_flow.core.errors import invalid
from genesis_flow.core.redact import RedactingFilter, Secret

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient, ContainerClient

ENV_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ENV_KEY = "AZURE_STORAGE_ACCESS_KEY"
ENV_SAS = "AZURE_STORAGE_SAS_TOKEN"
ENV_ACCOUNT = "AZURE_STORAGE_ACCOUNT"
DEFAULT_CREDENTIAL = "DefaultAzureCredential"
INSTALL = "Artifacts on Azure need the extra `azure`: `pip install -e '.[azure]'` in the checkout"
_NO_ACCOUNT = (
    f"{ENV_CONNECTION_STRING} names no account: it needs AccountName. Copy the connection string from the "
    "account's page in the Azure portal."
)

LARGEST_BLOCK = 256 * 1024**2
_RETRIES = {"retry_total": 4, "initial_backoff": 1, "increment_base": 2, "random_jitter_range": 1}
_CONNECTION_TIMEOUT = 10
_SCOPE = "https://storage.azure.com/.default"
# Each of these chooses another identity in DefaultAzureCredential.
_IDENTITY_VARIABLES = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_USERNAME", "IDENTITY_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Account:
    """Where to go, and with what; equal accounts share a client and its connections."""

    url: str | None
    connection_string: Secret | None
    key: Secret | None
    sas: Secret | None
    identity: tuple[str | None, ...]
    source: str
    """The variable or library that the credentials come from, for messages."""

    @classmethod
    def resolve(cls, uri: AzureUri, environ: Mapping[str, str] | None = None) -> Account:
        """The account of a URI; the first of connection string, key, SAS and DefaultAzureCredential wins."""
        environ = os.environ if environ is None else environ
        text = _value(environ, ENV_CONNECTION_STRING)
        parts = _connection_parts(text) if text else {}
        url = None if text else _url(uri, environ)
        key = sas = None
        identity: tuple[str | None, ...] = ()
        if "accountkey" in parts:
            _check_key(parts["accountkey"], ENV_CONNECTION_STRING)
            source = ENV_CONNECTION_STRING
        elif "sharedaccesssignature" in parts:
            sas, source = Secret(parts["sharedaccesssignature"]), ENV_CONNECTION_STRING
        elif parts.get("usedevelopmentstorage", "").lower() == "true":
            source = ENV_CONNECTION_STRING
        elif value := _value(environ, ENV_KEY):
            _check_key(value, ENV_KEY)
            key, source = Secret(value), ENV_KEY
        elif value := _value(environ, ENV_SAS):
            sas, source = Secret(value), ENV_SAS
        else:
            identity = tuple(environ.get(name) for name in _IDENTITY_VARIABLES)
            source = DEFAULT_CREDENTIAL
        return cls(url, Secret(text) if text else None, key, sas, identity, source)

    def service(self) -> BlobServiceClient:
        """A client, whose connections the process keeps; a forked child makes its own."""
        return _service(self, os.getpid())

    def container(self, uri: AzureUri) -> ContainerClient:
        """A client of the URI's container."""
        service = self.service()
        # Artifacts must not land in another account than the one that their URI names.
        if uri.account and service.account_name and uri.account != service.account_name:
            raise invalid(
                f"The artifact URI names the account {uri.account}, but {ENV_CONNECTION_STRING} is for "
                f"{service.account_name}: correct one of them."
            )
        return service.get_container_client(uri.container)


def require_library() -> None:
    try:
        import azure.storage.blob  # noqa: F401
    except ImportError as error:
        raise invalid(INSTALL) from error


@lru_cache(maxsize=8)
def _service(account: Account, process: int) -> BlobServiceClient:
    from azure.storage.blob import BlobServiceClient

    _hide_tokens_in_logs()
    options: dict[str, Any] = {
        **_RETRIES,
        "connection_timeout": _CONNECTION_TIMEOUT,
        "max_single_put_size": LARGEST_BLOCK,
        "max_single_get_size": LARGEST_BLOCK,
        "credential": _credential(account),
    }
    if account.connection_string is None:
        assert account.url is not None
        return BlobServiceClient(account.url, **options)
    try:
        return BlobServiceClient.from_connection_string(account.connection_string.reveal(), **options)
    except ValueError as error:
        raise invalid(_NO_ACCOUNT) from error


def _credential(account: Account) -> Any:
    """None where the connection string has its own key."""
    from azure.core.credentials import AzureSasCredential

    if account.key is not None:
        name = account.url and account.url.removeprefix("https://").partition(".")[0]
        return {"account_name": name, "account_key": account.key.reveal()} if name else account.key.reveal()
    if account.sas is not None:
        # As an object and not in the URL, which the library shows in messages.
        return AzureSasCredential(account.sas.reveal().removeprefix("?"))
    if account.source == DEFAULT_CREDENTIAL:
        return _default_credential()
    return None


def _default_credential() -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise invalid(INSTALL) from error
    # AZURE_CLIENT_ID, which the library reads itself, names a user-assigned managed identity.
    credential = DefaultAzureCredential()
    # The first request would repeat a refusal as if it were a failure of the network. The token is kept.
    credential.get_token(_SCOPE)
    return credential


def _hide_tokens_in_logs() -> None:
    """At DEBUG, urllib3 logs the path of each request with its query, and so the signature of a SAS."""
    for name in ("urllib3.connectionpool", "azure.core.pipeline.policies.http_logging_policy"):
        logger = logging.getLogger(name)
        if not any(isinstance(filter_there, RedactingFilter) for filter_there in logger.filters):
            logger.addFilter(RedactingFilter())


def _value(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _connection_parts(text: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.rstrip(";").split(";")]
    if not all(name.strip() and separator for name, separator, _ in parts):
        raise invalid(
            f"{ENV_CONNECTION_STRING} is malformed: it is a list of name=value with semicolons between them. "
            "Copy it from the account's page in the Azure portal, and quote it for the shell."
        )
    named = {name.strip().lower(): value for name, _, value in parts}
    if "accountkey" in named and "accountname" not in named:
        # Azure's library would go on without credentials.
        raise invalid(_NO_ACCOUNT)
    return named


def _url(uri: AzureUri, environ: Mapping[str, str]) -> str:
    if uri.host:
        return f"https://{uri.host}"
    name = _value(environ, ENV_ACCOUNT)
    if not name:
        raise invalid(
            f"The account of azure://{uri.container} is not known: name it in the URI as "
            f"azure://account.blob.core.windows.net/{uri.container}, or in {ENV_ACCOUNT}, or set "
            f"{ENV_CONNECTION_STRING}."
        )
    if not ACCOUNT_NAME.fullmatch(name):
        raise invalid(
            f"{ENV_ACCOUNT} must be the account's name alone, 3 to 24 lower-case letters and digits."
        )
    return f"https://{name}.blob.core.windows.net"


def _check_key(key: str, variable: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(
            f"The account key in {variable} is not base64: copy it again from the Azure portal, all of it."
        ) from None
