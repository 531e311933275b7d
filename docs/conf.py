"""Settings of the documentation: python -m sphinx -W --keep-going -b html docs docs/_build/html."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from sk_hsm import __version__

project = "sk_hsm"
author = "The sk_hsm developers"
copyright = author
version = release = __version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
highlight_language = "none"  # snippets with >>> are Python all the same
exclude_patterns = ["_build", "api/generated/backreferences", "auto_examples/**/*.py.md5"]

# -- API reference ----------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "set_fit_request, set_partial_fit_request, set_score_request"}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
toc_object_entries_show_parents = "hide"

# -- gallery ----------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[\\/]plot_",  # other examples are shown, not run
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("sk_hsm",),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
}

# -- doctest ----------------------------------------------------------------

doctest_test_doctest_blocks = "default"
doctest_global_setup = """
import warnings
warnings.simplefilter("ignore")
"""

# -- HTML -------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"sk_hsm {version}"
html_static_path = ["_static"]
html_css_files = ["sk_hsm.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_prev_next": False,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": {"**": ["page-toc"]},
}
# pages that have none below them to list
html_sidebars = {name: [] for name in ("index", "what_it_is", "user_guide", "mathematics", "contributing")}
html_sidebars |= {name: [] for name in ("accuracy", "embeddings", "roads", "speed")}
html_math_renderer = "mathml"


def mathml(node, latex, as_block):
    try:
        return tex2mathml(latex, as_block=as_block)
    except MathError as error:
        logging.getLogger(__name__).warning("formula %r: %s", latex, error, location=node)
        return ""


def visit_math(self, node):
    """Inline formulas as MathML: browsers draw it without a script, so also offline."""
    self.body.append(mathml(node, node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_displaymath(self, node):
    """Formulas on their own; lines and alignment as in other renderers."""
    latex = node.astext()
    if r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(mathml(node, latex, as_block=True) + "</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
