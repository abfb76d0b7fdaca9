"""How Sphinx builds the site, by `make docs`; neither building nor reading it fetches anything."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pages  # noqa: E402 (docs/pages.py)

from climlstm.version import __version__  # noqa: E402

project = "climlstm"
author = copyright = "The climlstm developers"
version = release = __version__

extensions = ["myst_nb"]
root_doc = "index"
exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
python_maximum_signature_line_length = 88

nb_execution_mode = "off"  # notebooks carry what docs/stored.py has kept
nb_ipywidgets_js = {}  # sliders need a running notebook; no script is loaded from elsewhere
myst_enable_extensions = ["attrs_inline", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # shell blocks with a file inside

html_theme = "sphinx_book_theme"
html_title = "climlstm"
html_static_path = ["_static"]
html_css_files = ["climlstm.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "repository_url": pages.REPOSITORY,
    "use_repository_button": True,
    "use_download_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": False,
}

pages.write_all()
