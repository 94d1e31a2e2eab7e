"""azure:// URIs, and the account that the environment gives them."""

import sys

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.artifacts.azure_account import Account
from genesis_flow.artifacts.azure_uri import AzureUri, checked_path
from genesis_flow.plugins.entrypoints import azure_artifact_repository

CANARY = "Canary4711"
KEY = "a2V5"
HOST = "myaccount.blob.core.windows.net"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (f"azure://{HOST}/runs/a/b", AzureUri("myaccount", HOST, "runs", "a/b")),
        (f"AZURE://{HOST.upper()}/runs", AzureUri("myaccount", HOST, "runs", "")),
        ("azure://runs", AzureUri(None, None, "runs", "")),
        ("azure://runs/a//b/", AzureUri(None, None, "runs", "a/b")),
        ("azure://runs/más 100%", AzureUri(None, None, "runs", "más 100%")),
        ("azure://$web/a", AzureUri(None, None, "$web", "a")),
        (
            "azure://a12.z34.blob.storage.azure.net/runs",
            AzureUri("a12", "a12.z34.blob.storage.azure.net", "runs", ""),
        ),
        (
            "azure://abc.blob.core.usgovcloudapi.net/runs",
            AzureUri("abc", "abc.blob.core.usgovcloudapi.net", "runs", ""),
        ),
    ],
)
def test_uris(uri: str, expected: AzureUri) -> None:
    assert AzureUri.parse(uri) == expected


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("wasbs://runs/a", "has the form azure://"),
        (f"azure://{HOST}", "name of a container"),
        ("azure://", "name of a container"),
        ("azure://ab/x", "name of a container"),
        ("azure://Upper/x", "name of a container"),
        ("azure://double--hyphen/x", "name of a container"),
        ("azure://evil.example.com/runs", "not a host of Azure Blob Storage"),
        ("azure://myaccount.blob.core.windows.net.evil.com/runs", "not a host of Azure Blob Storage"),
        ("azure://127.0.0.1:10000/myaccount/runs", "BlobEndpoint"),
        (f"azure://user:{CANARY}@{HOST}/runs", "no user name and no password"),
        (f"azure://runs/a?sv=1&sig={CANARY}", "AZURE_STORAGE_SAS_TOKEN"),
        ("azure://runs/a#b", "no query and no fragment"),
        ("azure://runs/a/../../other", "must not contain"),
        ("azure://runs/%2e%2e/other", "must not contain"),
        (f"azure://{HOST}/runs//etc", "must be relative"),
    ],
)
def test_bad_uris_are_refused_without_repeating_secrets(uri: str, sentence: str) -> None:
    with pytest.raises(MlflowException, match=sentence) as caught:
        AzureUri.parse(uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert CANARY not in caught.value.message


@pytest.mark.parametrize("path", ["a/./b", "a//b", "a/b/", "./a/b"])
def test_paths_are_normalized(path: str) -> None:
    assert checked_path(path) == "a/b"


@pytest.mark.parametrize("path", [None, "", ".", "./"])
def test_the_root_is_a_path(path: str | None) -> None:
    assert checked_path(path) == ""


@pytest.mark.parametrize("path", ["a..b", "...", "50%", "%zz", "a%2fb"])
def test_odd_names_are_names(path: str) -> None:
    assert checked_path(path) == path


@pytest.mark.parametrize(
    "path", ["..", "a/..", "%2E%2e/x", "%" + "25" * 12 + "2e.", "a\nb", "a\\..\\b", "/a", "%2fa"]
)
def test_paths_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(MlflowException):
        checked_path(path)


STRING = (
    f"DefaultEndpointsProtocol=https;AccountName=myaccount;AccountKey={KEY};EndpointSuffix=core.windows.net"
)
EVERYTHING = {
    "AZURE_STORAGE_CONNECTION_STRING": STRING,
    "AZURE_STORAGE_ACCESS_KEY": KEY,
    "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=abc",
    "AZURE_STORAGE_ACCOUNT": "myaccount",
}


@pytest.mark.parametrize(
    ("absent", "source"),
    [
        (0, "AZURE_STORAGE_CONNECTION_STRING"),
        (1, "AZURE_STORAGE_ACCESS_KEY"),
        (2, "AZURE_STORAGE_SAS_TOKEN"),
        (3, "DefaultAzureCredential"),
    ],
)
def test_the_first_credential_wins(absent: int, source: str) -> None:
    environ = {name: value for index, (name, value) in enumerate(EVERYTHING.items()) if index >= absent}
    account = Account.resolve(AzureUri.parse("azure://runs"), environ)
    assert account.source == source
    if source == "DefaultAzureCredential":  # whose client asks for a token at once
        assert account.url == f"https://{HOST}"
    else:
        assert account.service().account_name == "myaccount"
        assert account.service().url.rstrip("/") == f"https://{HOST}"


def test_the_account_of_the_uri_goes_before_the_environment() -> None:
    environ = {"AZURE_STORAGE_ACCESS_KEY": KEY, "AZURE_STORAGE_ACCOUNT": "another"}
    uri = AzureUri.parse(f"azure://{HOST}/runs")
    container = Account.resolve(uri, environ).container(uri)
    assert container.url == f"https://{HOST}/runs"
    assert container.credential.account_name == "myaccount"
    assert container.credential.account_key == KEY


def test_equal_accounts_share_their_connections() -> None:
    first, second = (Account.resolve(AzureUri.parse("azure://runs"), EVERYTHING) for _ in range(2))
    assert first.service() is second.service()


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "The account of azure://runs is not known"),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName;{CANARY}"}, "is malformed"),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountKey={KEY}"}, "names no account"),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountKey={KEY};BlobEndpoint=https://x"}, "names no account"),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "EndpointSuffix=core.windows.net;SharedAccessSignature=a"},
            "names no account",
        ),
        (
            {"AZURE_STORAGE_ACCOUNT": "https://abc", "AZURE_STORAGE_ACCESS_KEY": KEY},
            "the account's name alone",
        ),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=abc;AccountKey={CANARY}!"}, "not base64"),
        ({"AZURE_STORAGE_ACCOUNT": "abc", "AZURE_STORAGE_ACCESS_KEY": f"{CANARY}!"}, "not base64"),
    ],
)
def test_bad_settings_are_sentences(environ: dict[str, str], sentence: str) -> None:
    uri = AzureUri.parse("azure://runs")
    with pytest.raises(MlflowException, match=sentence) as caught:
        Account.resolve(uri, environ).container(uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert CANARY not in f"{caught.value.message} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_artifacts_do_not_land_in_another_account() -> None:
    uri = AzureUri.parse("azure://another.blob.core.windows.net/runs")
    with pytest.raises(MlflowException, match=r"account another, but .* is for myaccount"):
        Account.resolve(uri, EVERYTHING).container(uri)


def test_secrets_do_not_show() -> None:
    shown = repr(Account.resolve(AzureUri.parse("azure://runs"), EVERYTHING))
    assert KEY not in shown
    assert "AZURE_STORAGE_CONNECTION_STRING" in shown


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(MlflowException) as caught:
        azure_artifact_repository("azure://runs/1")
    assert "pip install -e '.[azure]'" in caught.value.message
