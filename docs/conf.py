"""Sphinx: the pages of this folder, Markdown by MyST."""

project = "dprobust"
author = "the dprobust authors"
extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "What does training with differential privacy do to robustness?"
exclude_patterns = ["_build"]
html_static_path = ["_static"]
html_css_files = ["pages.css"]
