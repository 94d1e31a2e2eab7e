"""What mkdocs.yml cannot say: pages from outside docs/, the reference, and that nothing comes from elsewhere.

Pages are written to be read in the repository. Links that lead out of docs/ go to the page that the site
has for the file, and are dropped where it has none.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

# Files of the repository that are pages of the site.
ADDED = {
    "README.md": "about.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
_REPOSITORY_PATH = {page: path for path, page in ADDED.items()}
_LISTED = {"Schema": "schema", "Decisions": "adr"}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!?\[[^\]]*\])+)\]\(([^)\s]+)\)")
_FENCED = re.compile(r"(^[ ]*```.*?^[ ]*```$)", re.MULTILINE | re.DOTALL)
# What a browser fetches by itself; links that a reader may follow are another matter.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|link(?! rel="canonical"))[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)

REFERENCE = {
    "reference/aio.md": """# Asynchronous stores

[How to use them](../async.md). Every method is a coroutine.

::: genesis_flow.aio.MongoDBStore

::: genesis_flow.aio.MongoDBModelRegistryStore
""",
    "reference/stores.md": """# Blocking stores

What MLflow makes of a `mongodb://` or `genesis://` URI. Few programs need them: use MLflow's own calls.

::: genesis_flow.sync.tracking.MongoDBStore

::: genesis_flow.sync.registry.MongoDBModelRegistryStore
""",
    "reference/settings.md": """# Settings

[What they mean](../configuration.md).

::: genesis_flow.core.settings.Settings
""",
    "reference/embedded.md": """# The embedded server

::: genesis_flow.embedded
""",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    assert config.nav is not None
    for title, folder in _LISTED.items():
        pages = sorted(path.name for path in (ROOT / "docs" / folder).glob("*.md"))
        pages.sort(key=lambda name: name != "README.md")
        config.nav.append({title: [f"{folder}/{name}" for name in pages]})
    config.nav.append({"Reference": list(REFERENCE)})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, page in ADDED.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    for page, text in REFERENCE.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    site_path = page.file.src_uri
    source = PurePosixPath(_REPOSITORY_PATH.get(site_path, f"docs/{site_path}"))

    def replaced(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not path:
            return f"{image}[{_LINK.sub(replaced, text)}]({target})"
        wanted = os.path.normpath(source.parent / path)
        there = ADDED.get(wanted, wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
        if there is None or files.get_file_from_path(there) is None:
            if not (ROOT / wanted).exists():
                raise PluginError(f"{source}: {target} leads nowhere")
            return text
        relative = os.path.relpath(there, PurePosixPath(site_path).parent)
        return f"{image}[{_LINK.sub(replaced, text)}]({relative}{hash_sign}{anchor})"

    parts = _FENCED.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(replaced, part) for number, part in enumerate(parts))


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        if found := _FETCHED.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.name} fetches from another host: {found[0]}")
