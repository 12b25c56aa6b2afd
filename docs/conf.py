"""Sphinx configuration: pages that are generated from the package, and the checks that fail the build."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import ddplug  # noqa: E402
from ddplug.distillation import Distiller  # noqa: E402
from ddplug.distillation.callbacks import Callback  # noqa: E402
from ddplug.registry import GROUPS  # noqa: E402
from examples.benchmarks.figures import draw  # noqa: E402
from examples.benchmarks.tables import page  # noqa: E402

project = "ddplug"
author = "The ddplug developers"
version = release = ddplug.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated/benchmarks.md", "**/.*"]
html_theme = "furo"
html_title = "ddplug"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
doctest_test_doctest_blocks = ""  # the examples in docstrings are pytest's
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Nothing is fetched while building, so names of other packages are not links.
FOREIGN = "PIL|Path|abc|argparse|avalanche|collections|importlib|matplotlib|nn|nni|np|numpy|pathlib|torch|typing"
nitpick_ignore_regex = [(r"py:.*", rf"({FOREIGN})(\..*)?")]
# The docstring of a constant or a property is prose; napoleon would take what stands before a colon for its type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end  # type: ignore[method-assign]

GENERATED = HERE / "_generated"
CODE = (FunctionType, property, cached_property, staticmethod, classmethod)
log = logging.getLogger("ddplug.docs")


def public_modules() -> list[ModuleType]:
    """Every module of the package whose dotted name has no private part."""
    found = ["ddplug", *(info.name for info in pkgutil.walk_packages(ddplug.__path__, "ddplug."))]
    return [importlib.import_module(name) for name in sorted(found) if not re.search(r"\._", name)]


def imported(module: ModuleType) -> set[str]:
    """Names that a module imports from others."""
    tree = ast.parse(inspect.getsource(module))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in froms for alias in node.names}


def own_names(module: ModuleType) -> list[str]:
    """The public names that a module defines itself; what it re-exports is documented where it is defined."""
    elsewhere = imported(module)
    return [name for name in module.__all__ if name not in elsewhere and not name.startswith("__")]


def promise(cls: type, name: str) -> str | None:
    """Docstring of a method in the protocol that a class keeps; such classes need not inherit from it."""
    for protocol in (Distiller, Callback):
        methods = [method for method, value in vars(protocol).items() if isinstance(value, FunctionType)]
        if name in dir(protocol) and all(hasattr(cls, method) for method in methods):
            return inspect.getdoc(getattr(protocol, name))
    return None


def class_members(cls: type) -> Iterator[tuple[str, str | None]]:
    """Name and docstring of each public method and property; a field counts when a class docstring lists it."""
    listed = "\n".join(inspect.getdoc(base) or "" for base in cls.__mro__[:-1])
    annotations = inspect.get_annotations(cls)
    foreign = {name for base in cls.__mro__ if not base.__module__.startswith("ddplug.") for name in vars(base)}
    for name in sorted({*vars(cls), *annotations}):
        # class constants, such as the name a method is registered under, are explained with the protocol
        if name.startswith("_") or "ClassVar" in str(annotations.get(name)):
            continue
        if isinstance(inspect.getattr_static(cls, name, None), CODE):
            yield name, inspect.getdoc(getattr(cls, name)) or promise(cls, name)
        elif name not in foreign:
            yield name, name if re.search(rf"^\s*{name}: ", listed, re.MULTILINE) else promise(cls, name)


def undocumented(module: ModuleType) -> Iterator[str]:
    """Dotted public names of a module that have no docstring of their own."""
    if not module.__doc__:
        yield module.__name__
    comments = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    for name in own_names(module):
        value: Any = getattr(module, name)
        is_code = isinstance(inspect.unwrap(value), (type, FunctionType))
        text = value.__doc__ if is_code else "".join(comments.get(("", name), []))
        # a dataclass without a docstring gets its signature for one
        if not text or (isinstance(value, type) and text.startswith(f"{name}(")):
            yield f"{module.__name__}.{name}"
        if isinstance(value, type):
            yield from (f"{module.__name__}.{name}.{member}" for member, text in class_members(value) if not text)


def home(value: Any) -> str:
    """Dotted name under which an object is documented."""
    return value.__name__ if inspect.ismodule(value) else f"{value.__module__}.{value.__qualname__}"


def api_page(module: ModuleType) -> str:
    """The reference page of one module: what it defines, then where its re-exports live."""
    name, own = module.__name__, own_names(module)
    lines = [f"# {name}", "", "```{eval-rst}", f".. automodule:: {name}"]
    lines += [f"   :members: {', '.join(own)}", "   :show-inheritance:"] if own else ["   :no-members:"]
    elsewhere = [getattr(module, other) for other in module.__all__ if other in imported(module)]
    return "\n".join([*lines, "```", "", *(f"- {{py:obj}}`{home(value)}`" for value in elsewhere), ""])


def write(path: Path, text: str) -> None:
    """Write a generated page, unless it stands there already: Sphinx then need not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def generate(app: Sphinx) -> None:
    """Write the API pages and the benchmark tables; warn of every public name or method left undocumented."""
    modules = public_modules()
    pages = {f"{module.__name__}.md": api_page(module) for module in modules}
    for stale in set(GENERATED.glob("api/*.md")) - {GENERATED / "api" / name for name in pages}:
        stale.unlink()
    for name, text in pages.items():
        write(GENERATED / "api" / name, text)
    write(GENERATED / "benchmarks.md", page(HERE / "benchmarks"))
    draw(HERE / "benchmarks", GENERATED)
    for module in modules:
        for name in undocumented(module):
            log.warning("%s is public and has no docstring", name)
    described = "".join(path.read_text() for path in sorted((HERE / "methods").glob("*.md")))
    for point in entry_points(group=GROUPS["distiller"]):
        if point.value.startswith("ddplug.") and f"`{point.name}`" not in described:
            log.warning("distiller %r is registered and has no page in docs/methods", point.name)


def setup(app: Sphinx) -> None:
    """Hook the generated pages in before Sphinx looks for sources."""
    app.connect("builder-inited", generate)
