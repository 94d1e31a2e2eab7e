"""TLS as the doctor sees it, on a server with a certificate of its own authority."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from genesis_flow.cli.doctor import network
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.core.settings import Settings
from tests.doctor.helpers import examine
from tests.mongod import Mongod, running_mongod


def make_certificates(folder: Path, days: int) -> tuple[Path, Path]:
    """An authority's certificate, and a server's with its key."""
    now = datetime.now(UTC)

    def certificate(
        name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=1),
            not_valid_after=now + timedelta(days=days, hours=1),
        )
        builder = builder.add_extension(
            x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True
        )
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return builder.add_extension(names, critical=False).sign(signer, hashes.SHA256())

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    ca = folder / "ca.pem"
    ca.write_bytes(certificate("authority", "authority", authority, authority).public_bytes(pem))
    own = folder / "server.pem"
    key = server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    own.write_bytes(certificate("server", "authority", server, authority).public_bytes(pem) + key)
    return ca, own


@pytest.fixture(scope="module", params=[20])
def secured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mongod, Path]]:
    """A server whose certificate ends soon; it also takes plain connections, so that it can be set up."""
    ca, own = make_certificates(tmp_path_factory.mktemp("tls"), request.param)
    options = ("--tlsMode", "allowTLS", "--tlsCertificateKeyFile", str(own), "--tlsCAFile", str(ca))
    with running_mongod(
        replica_set=False, options=(*options, "--tlsAllowConnectionsWithoutCertificates")
    ) as server:
        yield server, ca


def test_a_certificate_that_ends_soon(secured: tuple[Mongod, Path], tmp_path: Path) -> None:
    server, ca = secured
    uri = f"mongodb://localhost:{server.port}/mlflow?directConnection=true&tls=true&tlsCAFile={ca}"
    report = examine("--artifact-root", str(tmp_path / "artifacts"), uri=uri)
    assert report.verdict("TLS") == "warn", report.output
    assert report.checks["TLS"]["details"]["days"] == pytest.approx(20, abs=0.1)
    assert "TLSv1.3" in report.told("TLS")


def test_a_certificate_that_nobody_checks(secured: tuple[Mongod, Path], tmp_path: Path) -> None:
    server, _ = secured
    uri = f"mongodb://localhost:{server.port}/mlflow?directConnection=true&tls=true&tlsInsecure=true"
    report = examine("--artifact-root", str(tmp_path / "artifacts"), uri=uri)
    assert report.verdict("TLS") == "warn"
    assert "tlsCAFile" in report.told("TLS")


@pytest.mark.parametrize(
    ("uri", "verdict"),
    [
        ("mongodb://db.example.com/mlflow", "warn"),
        ("mongodb://127.0.0.1,db.example.com/mlflow", "warn"),
        ("mongodb://localhost:27017/mlflow", "ok"),
        ("mongodb://[::1]:27017/mlflow", "ok"),
        ("genesis:///srv/data", "ok"),
    ],
)
def test_plain_connections_matter_once_they_leave_the_machine(uri: str, verdict: str) -> None:
    settings = Settings.resolve(uri, environ={})
    patient = Patient(settings, settings, None, None, 1.0)  # type: ignore[arg-type] - decided by the URI alone
    assert network.tls(patient).verdict == verdict
