"""The directory of an embedded MongoDB on a command line: its path, or the URI by which stores know it."""

import re
from pathlib import Path
from typing import Any

import click

from genesis_flow.core.redact import mask_uri

# One letter would be a drive. A folder of such a name can still be given, as ./name:/more.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/")


class DataDirectory(click.Path):
    """Takes ``genesis:///DIR`` too, and refuses other URIs, which would be made folders of that name."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if not _SCHEME.match(text) and not text.lower().startswith("genesis:"):
            return super().convert(value, param, ctx)
        if not text.lower().startswith("genesis:"):
            self.fail(
                f"{mask_uri(text)!r} is the URI of something else: give the folder of an embedded MongoDB, "
                "such as genesis-data or genesis:///path/to/directory.",
                param,
                ctx,
            )
        return super().convert(str(self._named(text, param, ctx)), param, ctx)

    def _named(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from mlflow.exceptions import MlflowException  # takes a second, which paths need not wait

        from genesis_flow.core.uri import GenesisUri, parse

        try:
            parsed = parse(text, "argument")
        except MlflowException as error:
            self.fail(error.message, param, ctx)
        assert isinstance(parsed, GenesisUri)
        if parsed.prefix:
            self.fail(
                f"{text!r} names a collection prefix, but all prefixes share one server: leave out '#' and "
                "what follows.",
                param,
                ctx,
            )
        return parsed.directory
