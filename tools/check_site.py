"""What is wrong with a folder of HTML pages: links, anchors and images that lead nowhere, raw formulas, other hosts."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script", "img", "iframe", "source", "video", "audio", "embed"}  # by their src
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest", "preconnect", "dns-prefetch"}
NOT_PROSE = {"script", "style", "pre", "code", "textarea"}
RAW_FORMULA = re.compile(
    r"\\\(|\\\[|\$\$|\\begin\{|\\(?:alpha|frac|lVert|mathbb|otimes|sigma|eta|mu|gamma)\b|\$[^$\n]{1,80}[\\^_][^$\n]*\$"
)
CSS_LOAD = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)")


class Page(HTMLParser):
    """The ids of a page, what it links to and what it loads, and its prose outside code and formulas."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loads, self.prose, self.formulas = set(), [], [], [], 0
        self.path, self.skipped = path, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        of = {name: value or "" for name, value in attributes}
        self.ids |= {of[key] for key in ("id", "name") if key in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if tag in LOADS and "src" in of:
            self.loads.append(of["src"])
        if tag == "link" and LOADED_LINKS & set(of.get("rel", "").split()):
            self.loads.append(of.get("href", ""))
        self.loads += CSS_LOAD.findall(of.get("style", ""))
        formula = "math" in of.get("class", "").split()
        self.formulas += formula
        if self.skipped:
            self.skipped += [tag] if tag == self.skipped[-1] else []
        elif tag in NOT_PROSE or formula:
            self.skipped.append(tag)

    def handle_endtag(self, tag):
        if self.skipped and tag == self.skipped[-1]:
            self.skipped.pop()

    def handle_data(self, data):
        if not self.skipped:
            self.prose.append(data)


def problems(folder: Path) -> list[str]:
    """One line each, empty if all is well. Links to other hosts may stand there; nothing may be loaded from them."""
    found = [
        path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts
    ]  # there lie themes' templates
    pages = {path: Page(path) for path in found}
    wrong = [] if pages else [f"{folder}: no pages"]
    for path, page in pages.items():
        here = path.relative_to(folder)
        for target in dict.fromkeys(page.links + page.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loads and parts.scheme != "data":
                    wrong.append(f"{here}: loads {target}")
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                wrong.append(f"{here}: leads nowhere: {target}")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
                wrong.append(f"{here}: no such place: {target}")
        wrong += [f"{here}: a raw formula: {found[0]}" for found in map(RAW_FORMULA.search, page.prose) if found]
        if page.formulas and not any("mathjax" in load for load in page.loads):
            wrong.append(f"{here}: has formulas, and nothing that draws them")
    for sheet in folder.rglob("*.css"):
        found = CSS_LOAD.findall(sheet.read_text(encoding="utf-8", errors="replace"))
        wrong += [f"{sheet.relative_to(folder)}: loads {target}" for target in found]
    return wrong
