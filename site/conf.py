"""Sphinx: the course's notebooks as they were executed, the report's figures, glossary, model cards, and the source.

`tools/make_site.py` puts the pages together and runs it. A page that is read fetches nothing: MathJax lies beside it.
"""

import hashlib
import sys
from importlib.metadata import distribution
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "gpt2lib"
author = "The gpt2lib authors"
html_title = "gpt2lib"
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.mathjax", "source_pages"]
exclude_patterns = ["report/**", "figures/**"]  # files that pages link to, no pages

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False

# MathJax 3.2.2 with its fonts and all of TeX in one file, from a package of pip's: what npm's mathjax@3.2.2 holds
MATHJAX_SHA256 = "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"
mathjax_path = "mathjax.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}


def copy_mathjax(app, error):
    if error is None and app.builder.format == "html":
        file = distribution("sphinx-mathjax-offline").locate_file(
            "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js"
        )
        content = Path(file).read_bytes()
        if hashlib.sha256(content).hexdigest() != MATHJAX_SHA256:
            raise ValueError(f"{file} is not MathJax 3.2.2")
        (Path(app.outdir) / "_static" / mathjax_path).write_bytes(content)


def setup(app):
    app.connect("build-finished", copy_mathjax)
