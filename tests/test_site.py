"""The site: a few of its pages are built, and the check that `make site` ends with finds every kind of fault."""

import json
import re
import shutil
import subprocess
import sys

import jupytext
import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import check_site
import make_site

GOOD = """<html><head><script src="mathjax.js"></script><link rel="stylesheet" href="a.css"></head><body>
<h2 id="here">A page</h2> <a href="#here">up</a> <a href="other.html#there">over</a> <a href="https://arxiv.org">away</a>
<img src="a.svg"> <span class="math">\\(\\alpha\\)</span> <code>$x_1$</code> A meal for $5, or for $6. </body></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two notebooks, the glossary, the report's pages and a model card, as `make site` builds them all."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    make_site.assemble(source, only={"11", "14"})
    assert make_site.build(source, output) == []
    return output


def test_its_pages_are_there_and_search_finds_them(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts}
    expected = {"index", "report", "results-mini", "site/glossary", "search", "gpt2lib/weights/gpt2-mini/README"}
    expected |= {"notebooks/11_lora", "notebooks/14_alpha_theory"}
    assert {f"{name}.html" for name in expected} <= pages
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert all(word in index for word in ("kroneck", "glossari"))  # stems
    assert list((site / "_downloads").rglob("report.pdf"))


def test_notebooks_show_their_figures_and_fold_their_solutions(site):
    text = (site / "notebooks" / "14_alpha_theory.html").read_text(encoding="utf-8")
    images = {name for name in re.findall(r'src="\.\./_images/([^"]+)"', text)}
    assert len(images) >= 3 and all((site / "_images" / name).is_file() for name in images)
    assert "hide-input" in text
    assert "interactive(" not in text  # a widget without its kernel


def test_the_reports_page_says_what_its_tables_say(site):
    text = (site / "results-mini.html").read_text(encoding="utf-8")
    table = (REPOSITORY / "figures" / "mini" / "methods.csv").read_text(encoding="utf-8").splitlines()
    row = next(line.split(",") for line in table if line.startswith("sst,lora,"))
    value, low, high = (100 * float(row[table[0].split(",").index(name)]) for name in ("value", "low", "high"))
    assert f"<strong>{value:.1f}</strong>\u00a0({low:.1f}\u2060–\u2060{high:.1f})" in text


def test_every_executed_notebook_has_a_place(tmp_path):
    make_site.assemble(tmp_path)
    index = (tmp_path / "index.md").read_text(encoding="utf-8")
    pairs = [path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb") if path.with_suffix(".py").is_file()]
    assert len(pairs) > 10
    for name in pairs:
        assert index.count(f"<notebooks/{name}>") == 1  # in the side bar
        assert f"](notebooks/{name}.ipynb)" in index  # on the map
        assert (tmp_path / "notebooks" / f"{name}.ipynb").is_file()


def test_a_notebook_without_a_group_is_shown_last():
    contents = {"groups": [{"title": "A", "numbers": [1]}]}
    pairs = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))[:2]
    text = make_site.tables_of_contents(REPOSITORY / "none", contents, {1: pairs[0], 99: pairs[1]})
    assert text.index("caption: A") < text.index("caption: More") < text.index(f"<notebooks/{pairs[1].stem}>")


def test_links_in_notebooks_and_pages_lead_somewhere():
    """Those that are relative; in all notebooks, the executed and those that are not yet."""
    texts = {path: path.read_text(encoding="utf-8") for path in (REPOSITORY / "site").glob("*.md")}
    for path in (REPOSITORY / "notebooks").glob("*.py"):
        cells = jupytext.read(path).cells
        texts[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    made = {"report.md"}  # by tools/result_pages.py
    for path, text in texts.items():
        for link in re.findall(r"\]\(([^)\s#]+)", text):
            if "://" not in link and link not in made:
                target = (path.parent / link).resolve()
                assert target.with_suffix(".py" if target.suffix == ".ipynb" else target.suffix).exists(), (path, link)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "page.html").write_text(GOOD, encoding="utf-8")
    (tmp_path / "other.html").write_text('<p id="there"></p>', encoding="utf-8")
    for name in ("a.css", "a.svg", "mathjax.js"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_good_folder_has_no_problems(folder):
    assert check_site.problems(folder) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("other.html", "nothing.html", "leads nowhere: nothing.html"),
        ("#here", "#nowhere", "no such place: #nowhere"),
        ("#there", "#nowhere", "no such place: other.html#nowhere"),
        ("a.svg", "b.svg", "leads nowhere: b.svg"),
        ("a.svg", "https://example.org/a.svg", "loads https://example.org/a.svg"),
        ('src="mathjax.js"', 'src="//example.org/m.js"', "loads //example.org/m.js"),
        ('href="a.css"', 'href="https://example.org/a.css"', "loads https://example.org/a.css"),
        ("A page", "$x_1^2$", "a raw formula: $x_1^2$"),
        ("A page", "\\(x\\)", "a raw formula"),
        ("A page", "so \\alpha is", "a raw formula"),
        ('<script src="mathjax.js"></script>', "", "nothing that draws them"),
    ],
)
def test_every_fault_is_found(folder, old, new, said):
    assert GOOD.count(old) == 1
    (folder / "page.html").write_text(GOOD.replace(old, new), encoding="utf-8")
    wrong = check_site.problems(folder)
    assert wrong and any(line.startswith("page.html: ") and said in line for line in wrong), wrong


def test_a_style_sheet_that_loads_from_elsewhere_is_found(folder):
    (folder / "a.css").write_text("@font-face { src: url('https://example.org/f.woff2') }", encoding="utf-8")
    assert check_site.problems(folder) == ["a.css: loads https://example.org/f.woff2"]


def test_a_browser_draws_every_formula(site):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium or chrome to draw a page")
    page = site / "notebooks" / "14_alpha_theory.html"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    formulas = check_site.Page(page).formulas
    assert 20 < formulas == drawn.count("<mjx-container"), (formulas, drawn.count("<mjx-container"))
    assert "data-mjx-error" not in drawn


def test_hidden_cells_are_folded(tmp_path):
    cell = {
        "cell_type": "code",
        "metadata": {"jupyter": {"source_hidden": True}, "tags": ["a"]},
        "source": "",
        "outputs": [],
    }
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    assert make_site.for_reading(path)["cells"][0]["metadata"]["tags"] == ["a", "hide-input"]


def test_links_to_pages_that_are_not_there_yet_leave_their_words(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "11_lora.ipynb").touch()
    page = tmp_path / "page.md"
    kept = "[here](notebooks/11_lora.ipynb#a), [away](https://x.org/y), [nowhere](none.ipynb), ![](no.png), [up](#up)"
    page.write_text(f"{kept}; [`fit`](gpt2lib/training/trainer.py), [later](notebooks/14_alpha_theory.ipynb)")
    make_site.unlink_absent(page, tmp_path)
    assert page.read_text() == f"{kept}; `fit`, later"


ALSO = {  # what a term is called where it is met
    "Base model": "base",
    "Causal mask": "causal",
    "Classification head": "classif",
    "Confidence interval": "interval",
    "Cosine similarity": "cosine",
    "Gradient checkpointing": "checkpointed",
    "KV cache": "cache",
    "Multi-head attention": "heads",
    "Overfitting": "overfit",
    "p-value": "two-sided $p$",
    "Spectrum": "singular values",
    "Target layers": "targets",
    "Task mixture": "mixture",
    "Tied weights": "tied",
    "Transformer block": "block",
}


def test_the_glossary_names_notebooks_in_which_its_words_are_met():
    def plain(text):  # without what comments, hyphens, line ends and capitals change
        return re.sub(r"[\s_#-]+", " ", text.lower())

    def met(word, text):
        return re.search(rf"(?<!\w){re.escape(plain(word))}", text) or plain(word).replace(" ", "") in text

    for entry in (REPOSITORY / "site" / "glossary.md").read_text().split("\n## ")[1:]:
        title, _, body = entry.partition("\n")
        known = (*re.fullmatch(r"(.*?)(?: \((.*)\))?", title).groups(), ALSO.get(title))
        for name in re.findall(r"notebooks/(\w+)\.ipynb", body):
            text = plain((REPOSITORY / "notebooks" / f"{name}.py").read_text())
            words = [word.split(", ") for word in known if word]
            assert any(all(met(part, text) for part in parts) for parts in words), f"{title} is not met in {name}"
