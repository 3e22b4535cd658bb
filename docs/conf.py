"""How Sphinx builds the documentation: `make docs` writes it to build/docs.

Its source folder is the root of the repository, so that a link works the same on a web host of the
repository and in what is built here.
"""

import sys
from pathlib import Path

from plato import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "Plato"
author = "the authors of Plato"
copyright = "the authors of Plato"  # noqa: A001
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "plato_docs.docstrings",
    "plato_docs.generated",
    "plato_docs.repository",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "benchmarks/results/REPORT.md",
    "examples/README.md",
    "k8s/README.md",
    "plato/web/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
]
exclude_patterns = [".*", "build", "dist", "shared", "**/node_modules", "**/__pycache__"]

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"Plato {release}"
html_extra_path = ["_static/index.html"]
html_static_path = ["_static/style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False
