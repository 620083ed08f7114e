"""How Sphinx builds the documentation: `tox -e docs`."""

from __future__ import annotations

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
