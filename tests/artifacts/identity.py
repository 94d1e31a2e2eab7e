"""What Azure gives a machine with managed identities: an endpoint that hands out tokens, and TLS."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

USER_ASSIGNED = "11111111-2222-3333-4444-555555555555"
SECRET_HEADER = "of this machine"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Azurite of a test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


class IdentityEndpoint:
    """Gives tokens to the user-assigned identity alone, and remembers who asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str | None] = []
        self.token = _token()


@contextmanager
def running_identity_endpoint() -> Iterator[IdentityEndpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            client_id = parse_qs(urlsplit(self.path).query).get("client_id", [None])[0]
            endpoint.asked.append(client_id)
            known = client_id == USER_ASSIGNED and self.headers.get("X-IDENTITY-HEADER") == SECRET_HEADER
            answer: dict[str, Any] = {
                "access_token": endpoint.token,
                "expires_on": str(int(time.time()) + 3600),
                "resource": "https://storage.azure.com",
                "token_type": "Bearer",
            }
            body = json.dumps(answer if known else {"message": "no such identity"}).encode()
            self.send_response(200 if known else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = IdentityEndpoint(f"http://127.0.0.1:{server.server_port}/token")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def _token() -> str:
    """A token as Azurite wants it; it does not look at the signature."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/11111111-1111-1111-1111-111111111111/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
        "oid": USER_ASSIGNED,
        "tid": "11111111-1111-1111-1111-111111111111",
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims, "signature")
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )
