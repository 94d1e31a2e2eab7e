"""``azure://account.blob.core.windows.net/container/path`` and ``azure://container/path``."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote

from genesis_flow.core.errors import invalid

SCHEME = "azure"
FORMS = "azure://account.blob.core.windows.net/container/path or azure://container/path"

# Pinned to Azure's own domains: an artifact location can come from any user of a server, and the server's
# token or SAS is sent to the host that it names.
_HOST = re.compile(
    r"(?P<account>[a-z0-9]{3,24})(?:\.z\d{1,2})?\.blob"
    r"\.(?:core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|storage\.azure\.net)"
)
ACCOUNT_NAME = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\$root|\$web|\$logs")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MOST_DECODINGS = 10


@dataclass(frozen=True, slots=True)
class AzureUri:
    """A place for artifacts; the path is taken as it stands, without percent-decoding."""

    account: str | None
    host: str | None
    container: str
    path: str

    @classmethod
    def parse(cls, uri: str) -> AzureUri:
        scheme, separator, rest = uri.partition("://")
        if scheme.lower() != SCHEME or not separator:
            raise invalid(f"An artifact URI on Azure has the form {FORMS}.")
        if "?" in rest or "#" in rest:
            raise invalid(
                "An azure:// URI takes no query and no fragment: it is stored with every run and shown to "
                "everybody who may see the run. Put a SAS token into AZURE_STORAGE_SAS_TOKEN."
            )
        authority, _, path = rest.partition("/")
        if "@" in authority:
            raise invalid(
                f"An azure:// URI takes no user name and no password; its form is {FORMS}. "
                "Credentials come from the environment."
            )
        if "." not in authority and ":" not in authority:
            return cls(None, None, _container(authority), checked_path(path))
        host = _HOST.fullmatch(authority.lower())
        if host is None:
            raise invalid(
                f"{authority} is not a host of Azure Blob Storage such as account.blob.core.windows.net. For "
                "another endpoint write azure://container/path and name it as BlobEndpoint in "
                "AZURE_STORAGE_CONNECTION_STRING."
            )
        container, _, path = path.partition("/")
        return cls(host["account"], host[0], _container(container), checked_path(path))


def checked_path(path: str | None) -> str:
    """A path below the root, normalized; refused if it could lead out of it, here or on the local disk."""
    if not path:
        return ""
    if _CONTROL.search(path) or "\\" in path:
        raise invalid(f"The artifact path {path!r} contains a control character or a backslash: rename it.")
    decoded = path
    for _ in range(_MOST_DECODINGS):
        if ".." in re.split(r"[/\\]", decoded) or decoded.startswith("/"):
            raise invalid(f"Invalid artifact path {path!r}: it must be relative and must not contain '..'.")
        if (further := unquote(decoded)) == decoded:
            break
        decoded = further
    else:
        raise invalid(f"Invalid artifact path {path!r}: it is percent-encoded too many times over.")
    normal = posixpath.normpath(path)
    return "" if normal == "." else normal


def _container(name: str) -> str:
    if not _CONTAINER.fullmatch(name):
        raise invalid(
            f"{name!r} is not the name of a container (3 to 63 lower-case letters, digits and single "
            f"hyphens). The form of the URI is {FORMS}."
        )
    return name
