"""Who may do what, and that nobody sees with what."""

import base64
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    ContainerClient,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_container_sas,
)
from mlflow.exceptions import MlflowException

from genesis_flow.artifacts import azure_account
from genesis_flow.artifacts.azure_blob import AzureArtifactRepository
from tests.artifacts.azurite import ACCOUNT, KEY, Azurite, running_azurite
from tests.artifacts.conftest import opened
from tests.artifacts.identity import (
    SECRET_HEADER,
    USER_ASSIGNED,
    IdentityEndpoint,
    make_certificate,
    running_identity_endpoint,
)
from tests.mongod import free_port

CANARY = "Canary4711"
WRONG_KEY = base64.b64encode(f"{CANARY} in a key".encode()).decode()
WRONG_SAS = f"sv=2024-11-04&ss=b&srt=sco&sp=rwdlac&se=2039-01-01T00:00:00Z&sig={CANARY}%2Fin%2Fa%2FSAS%3D"
IN_AN_HOUR = timedelta(hours=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"model" * 200_000)  # several blocks
    return path


def works(uri: str, file: Path) -> AzureArtifactRepository:
    """Every operation, with what the environment gives."""
    repository = opened(uri)
    repository.log_artifact(str(file), "models")
    assert [info.path for info in repository.list_artifacts("models")] == ["models/model.bin"]
    assert Path(repository.download_artifacts("models/model.bin")).read_bytes() == file.read_bytes()
    repository.delete_artifacts("models")
    return repository


def test_a_key_of_its_own(
    azurite: Azurite, container: ContainerClient, environment: pytest.MonkeyPatch, file: Path
) -> None:
    environment.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName={ACCOUNT};{azurite.endpoint()}")
    environment.setenv("AZURE_STORAGE_ACCESS_KEY", KEY)
    works(f"azure://{container.container_name}/base", file)
    works(f"azure://{ACCOUNT}.blob.core.windows.net/{container.container_name}/base", file)


@pytest.mark.parametrize("form", ["in the environment", "with a question mark", "in the connection string"])
def test_a_sas_of_the_account(
    azurite: Azurite, container: ContainerClient, environment: pytest.MonkeyPatch, file: Path, form: str
) -> None:
    sas = generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, write=True, delete=True, list=True, create=True),
        datetime.now(UTC) + IN_AN_HOUR,
    )
    if form == "in the connection string":
        given = f"{azurite.endpoint()}SharedAccessSignature={sas}"
        environment.setenv("AZURE_STORAGE_CONNECTION_STRING", given)
    else:
        environment.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.endpoint())
        environment.setenv("AZURE_STORAGE_SAS_TOKEN", f"?{sas}" if form == "with a question mark" else sas)
    works(f"azure://{container.container_name}/base", file)


def test_a_sas_that_may_only_read(
    azurite: Azurite, container: ContainerClient, environment: pytest.MonkeyPatch, file: Path
) -> None:
    container.upload_blob("base/old.txt", b"old")
    name = container.container_name
    permission = ContainerSasPermissions(read=True, list=True)
    expiry = datetime.now(UTC) + IN_AN_HOUR
    sas = generate_container_sas(ACCOUNT, name, account_key=KEY, permission=permission, expiry=expiry)
    environment.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.endpoint())
    environment.setenv("AZURE_STORAGE_SAS_TOKEN", sas)
    repository = opened(f"azure://{name}/base")
    assert Path(repository.download_artifacts("old.txt")).read_bytes() == b"old"
    for call in (lambda: repository.log_artifact(str(file)), lambda: repository.delete_artifacts("old.txt")):
        with pytest.raises(MlflowException, match="AZURE_STORAGE_SAS_TOKEN do not allow it") as caught:
            call()
        assert caught.value.error_code == "PERMISSION_DENIED"
    with pytest.raises(MlflowException, match="not supported"):
        repository.create_multipart_upload("model.bin", 2)


@pytest.fixture
def identity(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[Azurite, IdentityEndpoint, ContainerClient]]:
    """A machine with a user-assigned identity, and a storage that only takes tokens of it over TLS."""
    certificate, key = make_certificate(tmp_path)
    environment.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    environment.setenv("IDENTITY_HEADER", SECRET_HEADER)
    environment.setenv("AZURE_CLIENT_ID", USER_ASSIGNED)
    folder = tmp_path / "azurite"
    folder.mkdir()
    options = ("--oauth", "basic", "--cert", str(certificate), "--key", str(key))
    with (
        running_azurite(folder, *options, scheme="https") as azurite,
        running_identity_endpoint() as endpoint,
    ):
        environment.setenv("IDENTITY_ENDPOINT", endpoint.url)
        environment.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.endpoint())
        container = ContainerClient.from_connection_string(azurite.connection_string(), "identity")
        container.create_container()
        yield azurite, endpoint, container


def test_a_user_assigned_managed_identity(
    identity: tuple[Azurite, IdentityEndpoint, ContainerClient],
    environment: pytest.MonkeyPatch,
    file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    _, endpoint, container = identity
    repository = works("azure://identity/base", file)
    assert set(endpoint.asked) == {USER_ASSIGNED}
    assert len(endpoint.asked) == 1, "the token is kept"

    repository.log_artifact(str(file))
    # Signed with a key that the service gave to this identity. Azurite does not know how the newest version
    # of the protocol signs with such keys, so that the URL cannot be tried here.
    assert f"skoid={USER_ASSIGNED}" in repository.get_download_presigned_url("model.bin").url
    assert endpoint.token not in caplog.text

    environment.setenv("AZURE_CLIENT_ID", USER_ASSIGNED.replace("1", "9"))
    with pytest.raises(MlflowException, match="DefaultAzureCredential gave no token") as caught:
        opened("azure://identity/base").list_artifacts()
    assert caught.value.error_code == "UNAUTHENTICATED"
    assert [blob.name for blob in container.list_blobs()] == ["base/model.bin"]


def everything_said(error: BaseException, repository: AzureArtifactRepository) -> str:
    return "\n".join(
        (
            *traceback.format_exception(error),
            repr(error),
            repr(error.__cause__),
            repr(error.__context__),
            repr(repository),
            repr(repository.account),
            repr(vars(repository)),
            str(repository.container.url),
        )
    )


@pytest.mark.parametrize("reachable", [True, False], ids=["refused", "unreachable"])
@pytest.mark.parametrize("kind", ["key", "SAS", "key in the string", "SAS in the string"])
def test_no_secret_is_shown(
    azurite: Azurite,
    environment: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: Path,
    kind: str,
    reachable: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    environment.setattr(azure_account, "_RETRIES", {"retry_total": 0})
    place = f"AccountName={ACCOUNT};{azurite.endpoint(None if reachable else free_port())}"
    if kind == "key":
        environment.setenv("AZURE_STORAGE_ACCESS_KEY", WRONG_KEY)
    elif kind == "SAS":
        environment.setenv("AZURE_STORAGE_SAS_TOKEN", WRONG_SAS)
    elif kind == "key in the string":
        place += f"AccountKey={WRONG_KEY};"
    else:
        place += f"SharedAccessSignature={WRONG_SAS}"
    environment.setenv("AZURE_STORAGE_CONNECTION_STRING", place)
    repository = opened("azure://no-secrets/base")
    small = file.with_name("small.txt")
    small.write_bytes(b"small")
    for name, call in {
        "model.bin": lambda: repository.log_artifact(str(file)),
        "dir/small.txt": lambda: repository.log_artifact(str(small), "dir"),
        "all": lambda: repository.log_artifacts(str(file.parent), "all"),
        "some": lambda: repository.list_artifacts("some"),
        "gone": lambda: repository.delete_artifacts("gone"),
        "there.bin": lambda: repository.download_artifacts("there.bin"),
    }.items():
        with pytest.raises(MlflowException) as caught:
            call()
        assert caught.value.error_code == ("PERMISSION_DENIED" if reachable else "TEMPORARILY_UNAVAILABLE")
        assert f"azure://no-secrets/base/{name}" in caught.value.message
        said = everything_said(caught.value, repository)
        assert CANARY not in said
        assert WRONG_KEY not in said
    assert "urllib3.connectionpool" in {record.name for record in caplog.records}
    assert CANARY not in caplog.text
    assert WRONG_KEY not in caplog.text
