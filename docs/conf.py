"""How Sphinx builds the documentation: `tox -e docs`."""

from __future__ import annotations

import os
import re
from html import escape
from typing import Any

from pawprint_logging import __version__

project = "pawprint_logging"
author = "The pawprint_logging authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
#: without what a console shows before a command, and without what it answers
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
html_theme = "furo"
html_title = f"pawprint_logging {version}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["logo.css"]
html_favicon = html_logo = "../pawprint_logging/web/static/icon.svg"
exclude_patterns = ["_build"]
#: where the pages will be, for those who show a link to them; unknown to who builds them to look at
html_baseurl = os.environ.get("DOCS_URL", "").rstrip("/") + "/" if os.environ.get("DOCS_URL") else ""


def add_card(_app: Any, pagename: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Say in the head of a page what to show where somebody posts a link to it."""
    told = {
        "og:type": "website",
        "og:site_name": project,
        "og:title": re.sub(r"<[^>]*>", "", context.get("title") or project),
        "og:description": "Product events in your own PostgreSQL, from the log lines you already write.",
    }
    if html_baseurl:  # a picture is fetched by others, who need the whole of its address
        told["og:url"] = html_baseurl + ("" if pagename == "index" else f"{pagename}.html")
        told["og:image"] = f"{html_baseurl}_static/card.png"
        told["og:image:width"], told["og:image:height"] = "1200", "630"
        told["og:image:alt"] = "The logo of pawprint_logging, and its page in the browser with numbers and a chart."
    tags = "".join(f'<meta property="{name}" content="{escape(text)}">\n' for name, text in told.items())
    card = "summary_large_image" if html_baseurl else "summary"
    context["metatags"] = context.get("metatags", "") + f'{tags}<meta name="twitter:card" content="{card}">\n'


def setup(app: Any) -> None:
    """Hook in what is above; Sphinx calls this."""
    app.connect("html-page-context", add_card)


autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False

nitpicky = True
#: what is documented elsewhere: the standard library, psycopg2, pandas, python-json-logger; and what is no part of the
#: public interface
nitpick_ignore_regex = [
    ("py:.*", r"(pd|psycopg2|logging|pathlib|pythonjsonlogger|collections|datetime|os|typing|uuid|contextlib)\..*"),
    (
        "py:.*",
        r"(Path|Mapping|MutableMapping|Sequence|Iterable|Iterator|OrderedDict|Any|Unpack|Options|Stats|JsonFormatter|ABC)",
    ),
    ("py:.*", r"(LogRecord|Logger|Handler|timedelta|date|datetime|tzinfo|Moment|Since|Names|callable|optional)"),
    ("py:.*", r"(Axes|ASGIApp|WSGIApplication|WSGIEnvironment|threading\.Event)"),
    ("py:.*", r"A DataFrame|numbers|users"),  # napoleon takes the words before a colon for a type
    ("py:.*", r"pawprint_logging\.(_delivery|_reading|_database|_capture|errors|event\.Class|scope\.Within).*"),
]
