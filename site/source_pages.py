"""Sphinx extension: a Python file is a page of its own, to which links and each mention of its path lead."""

from pathlib import Path

from docutils import nodes
from sphinx.parsers import Parser


class SourceParser(Parser):
    supported = ("python",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        name = Path(document["source"]).relative_to(document.settings.env.srcdir).as_posix()
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title("", "", nodes.literal(text=name))
        section += nodes.literal_block(inputstring, inputstring, language="python", linenos=True)
        document += section


def link_mentions(app, doctree: nodes.document, docname: str) -> None:
    """`gpt2lib/adapters/lora.py` in a text becomes a link to that page."""
    for literal in list(doctree.findall(nodes.literal)):
        page = literal.astext().removesuffix(".py")
        known = page != literal.astext() and page in app.env.found_docs and page != docname
        if known and not isinstance(literal.parent, nodes.reference):
            target = app.builder.get_relative_uri(docname, page)
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), internal=True, refuri=target))


def setup(app):
    app.connect("doctree-resolved", link_mentions)
    app.add_source_suffix(".py", "python")
    app.add_source_parser(SourceParser)
    return {"parallel_read_safe": True}
