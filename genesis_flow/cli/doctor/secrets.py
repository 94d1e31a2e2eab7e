"""Whether the AI gateway's secrets are encrypted with a passphrase that only its servers know."""

from genesis_flow.areas.gateway.documents import SecretFields
from genesis_flow.cli.doctor.finding import Finding, ok, warn
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.compat import crypto


def passphrase(patient: Patient) -> Finding:
    secrets = patient.db[patient.settings.prefix + SecretFields.Settings.name]
    count = secrets.count_documents({})
    if not count:
        return ok("secrets", "The AI gateway has no secrets.", secrets=0)
    if crypto.tells_everybody():
        return warn(
            "secrets",
            f"{count} secrets of the AI gateway, and {crypto.PASSPHRASE} is not set here: without it they "
            "are encrypted with a passphrase that everybody knows.",
            f"Set {crypto.PASSPHRASE} for the servers; `genesis-flow gateway rotate-key` encrypts anew.",
            secrets=count,
        )
    other = secrets.count_documents({"kek_version": {"$ne": crypto.key_version()}})
    if other:
        return warn(
            "secrets",
            f"{other} of {count} secrets are encrypted with another version than {crypto.VERSION} says.",
            "Run `genesis-flow gateway rotate-key` again with the passphrases that it was begun with.",
            secrets=count,
        )
    return ok("secrets", f"{count} secrets of the AI gateway, with a passphrase of your own.", secrets=count)
