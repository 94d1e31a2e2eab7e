"""Can the server be reached, by whom can it be overheard, and does it agree on the time?"""

import socket
import ssl
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from genesis_flow.cli.doctor.finding import Finding, fail, ok, skip, warn
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.core.settings import Embedded, Settings
from genesis_flow.core.uri import MongoUri
from genesis_flow.embedded.files import is_open_to_all

_PINGS = 5
_SLOW_MILLISECONDS = 50
_DAYS_BEFORE_EXPIRY = 30
_CLOCK_WARN_SECONDS = 1.0
_CLOCK_FAIL_SECONDS = 60.0
_DAY = 86_400


def credentials(settings: Settings) -> Finding:
    """Where they come from: what is in a URI ends up in logs and process lists."""
    if isinstance(settings.target, Embedded):
        return _directory(settings.target.directory)
    source = settings.sources.get("password")
    if source is None:
        return ok("credentials", "No password is used.")
    if source.startswith("URI"):
        return warn(
            "credentials",
            "The password is part of the URI, which programs log and process lists show.",
            "Set GENESIS_FLOW_MONGODB_USERNAME and GENESIS_FLOW_MONGODB_PASSWORD_FILE instead.",
        )
    return ok("credentials", f"The password comes from: {source}.", source=source)


def _directory(directory: Path) -> Finding:
    """An embedded server has no users: everybody who may enter its directory may do everything."""
    if directory.is_dir() and is_open_to_all(directory):
        return warn(
            "credentials",
            f"Every user of this machine may put files of theirs into {directory}, and so read and change "
            "what is logged.",
            f"Close it: chmod o-w {directory}",
        )
    return ok("credentials", "None are needed: the directory belongs to its owner alone.")


def connection(patient: Patient) -> Finding:
    """The first call waits for the server as long as the settings say."""
    patient.hello = patient.command("hello")
    times = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        patient.command("ping")
        times.append((time.perf_counter() - began) * 1000)
    middle = statistics.median(times)
    details = {"milliseconds": round(middle, 2), "server": _server_name(patient)}
    message = f"{details['server']} answers in {middle:.1f} ms (median of {_PINGS})."
    if middle > _SLOW_MILLISECONDS:
        return warn(
            "connection",
            message,
            "Every logging call waits that long: move the clients, or the database, closer.",
            **details,
        )
    return ok("connection", message, **details)


def _server_name(patient: Patient) -> str:
    address = patient.db.client.address
    return f"{address[0]}:{address[1]}" if address and address[1] else "The embedded MongoDB"


def tls(patient: Patient) -> Finding:
    uri = patient.uri
    if uri is None:
        return ok("TLS", "Not needed: the embedded server listens on a socket of this machine only.")
    given = uri.option("tls") or uri.option("ssl")
    used = given == "true" if given else uri.scheme == "mongodb+srv"
    if not used:
        if patient.is_local:
            return ok("TLS", "Not used; the server is on this machine.")
        return warn(
            "TLS",
            "Not used: what is logged, and how users log in, can be read on the way.",
            "Turn it on at the server and add tls=true to the URI.",
        )
    if any(uri.option(name) == "true" for name in ("tlsInsecure", "tlsAllowInvalidCertificates")):
        return warn(
            "TLS",
            "Used, but the server's certificate is not checked, so anybody can pretend to be the server.",
            "Name the authority with tlsCAFile=… and remove tlsInsecure and tlsAllowInvalidCertificates.",
        )
    return _certificate(patient, uri)


def _certificate(patient: Patient, uri: MongoUri) -> Finding:
    """Of a handshake of our own, since the driver keeps its certificate to itself."""
    address = patient.db.client.address
    if address is None:
        return ok("TLS", "Used; the driver checked the certificate.")
    try:
        context = ssl.create_default_context(cafile=uri.option("tlsCAFile"))
        # From Python 3.13 on such a context refuses certificates that the driver takes.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = uri.option("tlsAllowInvalidHostnames") != "true"
        if key_file := uri.option("tlsCertificateKeyFile"):
            context.load_cert_chain(key_file, password=uri.option("tlsCertificateKeyFilePassword"))
        with (
            socket.create_connection(address, timeout=patient.timeout) as raw,
            context.wrap_socket(raw, server_hostname=address[0]) as wrapped,
        ):
            protocol, certificate = wrapped.version(), wrapped.getpeercert() or {}
    except (OSError, ValueError) as error:
        return skip("TLS", f"Used and checked by the driver; its details could not be seen ({error}).")
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _DAY
    message = f"Used ({protocol}); the server's certificate is valid for {days:.0f} more days."
    details = {"protocol": protocol, "days": round(days, 1)}
    if days < _DAYS_BEFORE_EXPIRY:
        return warn("TLS", message, "Renew it before clients are locked out.", **details)
    return ok("TLS", message, **details)


def clock(patient: Patient) -> Finding:
    """Times of runs come from clients, those of locks and leases from the server."""
    began, before = time.time(), time.perf_counter()
    local: datetime = patient.command("hello")["localTime"]
    took = time.perf_counter() - before
    difference = local.replace(tzinfo=UTC).timestamp() - (began + took / 2)
    side = "ahead of" if difference > 0 else "behind"
    message = f"The server's clock is {abs(difference):.2f} s {side} this machine's."
    advice = "Synchronise both with NTP: runs, traces and their order in time come from clients' clocks."
    details = {"seconds": round(difference, 3)}
    if abs(difference) > _CLOCK_FAIL_SECONDS:
        return fail("clock", message, advice, **details)
    if abs(difference) > _CLOCK_WARN_SECONDS:
        return warn("clock", message, advice, **details)
    return ok("clock", message, **details)
