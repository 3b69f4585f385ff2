"""The course and the report as a static site: put the pages together, run Sphinx, and check what came out.

python tools/make_site.py            # build/site/index.html; fails if a link, an image or a formula is broken
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import result_pages
from check_site import problems

ROOT = Path(__file__).resolve().parent.parent
PLAIN_FILES = ("report", "figures", "notebooks/studies", "LICENSE", "CITATION.cff")  # that pages link to


def assemble(source: Path, only: set[str] | None = None) -> None:
    """Write the pages into an empty folder, laid out as the repository, so that links from notebook to file hold.

    only: numbers of the notebooks to take, "01"; all executed pairs by default, and the package's source with them.
    """
    (source / "site").mkdir()
    for page in (ROOT / "site").glob("*.md"):
        shutil.copy2(page, source / "site")
    for name in PLAIN_FILES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, source / name)
    (source / "notebooks").mkdir(exist_ok=True)
    pairs = [path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")) if path.with_suffix(".py").is_file()]
    notebooks = [path for path in pairs if only is None or path.stem[:2] in only]
    for path in notebooks:
        (source / "notebooks" / path.name).write_text(json.dumps(for_reading(path)), encoding="utf-8")
    for path in (ROOT / "gpt2lib").rglob("*"):
        if path.name == "README.md" or (path.suffix == ".py" and only is None):
            (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, source / path.relative_to(ROOT))
    contents = tomllib.loads((ROOT / "site" / "contents.toml").read_text(encoding="utf-8"))
    index = (source / "site" / "index.md").rename(source / "index.md")
    text = index.read_text(encoding="utf-8").replace("](glossary.md)", "](site/glossary.md)")
    by_number = {int(path.stem[:2]): path for path in notebooks}
    text = text.replace("<!-- routes -->", routes(contents["routes"], by_number))
    text = text.replace("<!-- map -->", course_map(contents, by_number))
    index.write_text(
        text.replace("<!-- contents -->", tables_of_contents(source, contents, by_number)), encoding="utf-8"
    )
    result_pages.write(source, contents["figures"])
    for path in (*source.rglob("*.md"), *(source / "notebooks").glob("*.ipynb")):
        unlink_absent(path, source)


def unlink_absent(path: Path, source: Path) -> None:
    """Leave only the words of links to what the repository has and these pages have not, such as a notebook that was
    never executed. A link to what is nowhere stays, and Sphinx complains of it."""

    def words(found: re.Match) -> str:
        target = (path.parent / found[2]).resolve()
        if target.exists() or not target.is_relative_to(source.resolve()):
            return found[0]
        there = ROOT / target.relative_to(source.resolve())
        known = there.exists() or (there.suffix == ".ipynb" and there.with_suffix(".py").exists())
        return found[1] if known else found[0]

    def settled(text: str) -> str:
        return re.sub(r"(?<!!)\[([^\[\]]+)\]\(([^)\s#:]+)[^)\s]*\)", words, text)

    if path.suffix == ".md":
        path.write_text(settled(path.read_text(encoding="utf-8")), encoding="utf-8")
        return
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = settled("".join(cell["source"]))
    path.write_text(json.dumps(notebook), encoding="utf-8")


def for_reading(path: Path) -> dict:
    """The notebook with its hidden cells folded, and without what only a live kernel can show."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "hide-input"]
        widgets = [
            output
            for output in cell.get("outputs", [])
            if "".join(output.get("data", {}).get("text/plain", "")).startswith(("interactive(", "VBox(", "HBox("))
        ]
        if widgets:
            cell["outputs"] = [output for output in cell["outputs"] if output not in widgets]
    return notebook


def heading(path: Path) -> str:
    """A notebook's title: its first line."""
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].removeprefix("# ")


def link(path: Path) -> str:
    return f"[{path.stem[:2]} {heading(path)}](notebooks/{path.name})"


def routes(wanted: list[dict], notebooks: dict[int, Path]) -> str:
    cards = []
    for route in wanted:
        steps = [notebooks[number] for number in route["numbers"] if number in notebooks]
        lines = "\n".join(f"- {link(path)}" for path in steps)
        cards.append((route["title"], f"{route['text']}\n\n{lines}"))
    return grid(cards)


def course_map(contents: dict, notebooks: dict[int, Path]) -> str:
    cards = []
    for group in contents["groups"]:
        lines = []
        for number in group["numbers"]:
            if number in notebooks:
                needed = [f"{n:02}" for n in contents["needs"].get(str(number), []) if n in notebooks]
                lines.append(f"- {link(notebooks[number])}" + (f" *after {', '.join(needed)}*" if needed else ""))
        cards.append((group["title"], "\n".join(lines)))
    return grid([card for card in cards if card[1]])


def grid(cards: list[tuple[str, str]]) -> str:
    """Cards beside each other where there is room."""
    items = [f":::{{grid-item-card}} {name}\n{text}\n:::" for name, text in cards]
    return "\n".join(["::::{grid} 1 1 2 3", ":gutter: 2", "", *items, "::::"])


def tables_of_contents(source: Path, contents: dict, notebooks: dict[int, Path]) -> str:
    """The side bar: the course by groups (what no group has comes last), then the report and the rest."""
    grouped = [(group["title"], group["numbers"]) for group in contents["groups"]]
    known = {number for _, numbers in grouped for number in numbers}
    grouped.append(("More", [number for number in notebooks if number not in known]))
    found = []
    for caption, numbers in grouped:
        pages = [f"{n:02} {heading(notebooks[n])} <notebooks/{notebooks[n].stem}>" for n in numbers if n in notebooks]
        found.append((caption, pages))
    cards = [path.relative_to(source).with_suffix("") for path in sorted(source.glob("gpt2lib/weights/**/README.md"))]
    found.append(("Results", ["report", *(f"{card.parent.name}: model card <{card}>" for card in cards)]))
    code = sorted({p.relative_to(source).with_suffix("").as_posix() for p in source.glob("gpt2lib/**/*.py")})
    found.append(("Reference", ["site/glossary", *(["source"] if code else [])]))
    if code:
        (source / "source.md").write_text(
            "# The package's source\n\n" + result_pages.toctree(code, "The tree is the architecture")
        )
    return "\n\n".join(result_pages.toctree(pages, caption, ":hidden:") for caption, pages in found if pages)


def build(source: Path, output: Path) -> list[str]:
    """Run Sphinx, whose warnings are errors, and return what is wrong with the pages."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--jobs", "2"]
    subprocess.run([*command, "-c", str(ROOT / "site"), str(source), str(output)], check=True)
    return problems(output)


if __name__ == "__main__":
    source, output = ROOT / "build" / "site-source", ROOT / "build" / "site"
    for folder in (source, output):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    assemble(source)
    if wrong := build(source, output):
        sys.exit("\n".join(wrong))
    print(f"wrote {output / 'index.html'}")
