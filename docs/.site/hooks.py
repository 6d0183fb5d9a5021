"""What the site does beyond MkDocs: links into the repository, the pages of providers, and Markdown twins.

Pages link to files beside `docs/` by relative paths, so that they also work where the repository is read. On the site
those become links to the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    """List the page of each provider: one for each adapter, so that a new one needs no line here."""
    folder = Path(config.docs_dir) / "providers"
    about_all = [{"All": "providers/index.md"}, {"One request, any provider": "providers/matrix.md"}]
    pages = sorted(page.name for page in folder.glob("*.md") if page.name not in ("index.md", "matrix.md"))
    for entry in config.nav:
        if "Providers" in entry:
            entry["Providers"] = [*about_all, *({p[:-3]: f"providers/{p}"} for p in pages)]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Turn links to files outside `docs/` into links to the repository.

    Raises:
        FileNotFoundError: there is no such file.
    """
    root = Path(config.docs_dir).parent

    def absolute(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), match[2]))
        if path.startswith("docs/"):
            return match[0]
        if not (root / path).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {match[2]}")
        kind = "tree" if (root / path).is_dir() else "blob"
        return f"{match[1]}{config.repo_url.rstrip('/')}/{kind}/main/{path}{match[3]}"

    return _LINK.sub(absolute, markdown)


def on_post_build(config: Any) -> None:
    """Write a Markdown twin of each page, and `llms.txt`, which lists them."""
    source, target = Path(config.docs_dir), Path(config.site_dir)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for page in sorted(source.rglob("*.md")):
        name = page.relative_to(source)
        if name.parts[0].startswith("."):
            continue
        text = page.read_text("utf-8")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, "utf-8")
        lines.append(f"- [{text.partition(chr(10))[0].lstrip('# ')}]({name.as_posix()})")
    (target / "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")
