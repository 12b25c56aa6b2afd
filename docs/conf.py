"""Sphinx configuration: pages that are generated from the package, and the checks that fail the build."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import ddplug  # noqa: E402
from ddplug.distillation import Distiller  # noqa: E402
from ddplug.distillation.callbacks import Callback  # noqa: E402
from ddplug.registry import GROUPS  # noqa: E402
from ddplug.synthetic.codecs.protocol import Codec  # noqa: E402
from examples.benchmarks.figures import draw  # noqa: E402
from examples.benchmarks.gallery import page as gallery  # noqa: E402
from examples.benchmarks.tables import page as benchmarks  # noqa: E402
from examples.notebooks.run import NOTEBOOKS  # noqa: E402
from examples.notebooks.run import page as notebook  # noqa: E402

project = "ddplug"
author = "The ddplug developers"
project_copyright = author
version = release = ddplug.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["_build", "_generated/benchmarks.md", "_generated/gallery.md", "**/.*"]
html_theme = "furo"
html_title = "ddplug"
html_static_path = ["_static"]
html_css_files = ["cards.css"]

myst_enable_extensions = ["attrs_block", "deflist", "dollarmath"]
myst_heading_anchors = 3
doctest_test_doctest_blocks = ""  # the examples in docstrings are pytest's
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Nothing is fetched while building: names of other packages are no links, nor are those of types.
FOREIGN = "Augment|BaseTrial|Figure|PIL|Path|abc|argparse|avalanche|collections|importlib|matplotlib|nn|nni|np|numpy"
FOREIGN += "|optuna|os|pathlib|Candidate"
nitpick_ignore_regex = [(r"py:.*", rf"({FOREIGN}|torch|typing)(\..*)?")]
# The docstring of a constant or a property is prose; napoleon would take what stands before a colon for its type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end  # type: ignore[method-assign]

GENERATED = HERE / "_generated"
CODE = (FunctionType, property, cached_property, staticmethod, classmethod)
PARTS = "data functional networks synthetic distillation distillers evaluation privacy avalanche search nni optuna"
PAGES: dict[str, str] = {
    **{f"ddplug.{part}": "" for part in PARTS.split()},
    "ddplug.auto": "Choice choose",
    "ddplug.distillers.base": "",
    "ddplug.distillers.parts.images": "",
    "ddplug.distillers.presets": "",
    "ddplug.errors": "",
    "ddplug.evaluation.figures": "",
    "ddplug.evaluation.ranking": "",
    "ddplug.registry": "",
    "ddplug.search.agreement": "table",
    "ddplug.search.budget": "",
    "ddplug.search.courses": "Course courses",
    "ddplug.search.judging": "Case",
    "ddplug.search.zero_cost": "zero_cost",
    "ddplug.synthetic.card": "",
    "ddplug.synthetic.codecs": "",
    "ddplug.synthetic.export": "",
    "ddplug.synthetic.hub": "",
    "ddplug.synthetic.pictures": "",
    "ddplug.synthetic.ready": "",
    "ddplug.synthetic.tables": "to_csv to_parquet",
    "ddplug.testing": "",
    "ddplug.utils.notes": "Note",
    "ddplug.utils.processes": "LostError Task",
    "ddplug.utils.teams": "together Team team spread",
    "ddplug": "",
}
"""Pages of the reference, a face or a module that users need and no face loads; the names it lists, or all of its own.

What two pages list has its entry on the first.
"""
ROLE = re.compile(r"(:(?:attr|class|data|exc|func|meth|mod|obj):`)(~?)([\w.]+)(?=`)")
log = logging.getLogger("ddplug.docs")


class Entry(NamedTuple):
    """A name of the reference: the page that lists it, and where it is defined."""

    page: str
    name: str
    home: str
    attribute: str
    value: Any

    @property
    def kind(self) -> str:
        """What it is to Sphinx."""
        if isinstance(self.value, type):
            return "exception" if issubclass(self.value, BaseException) else "class"
        if isinstance(inspect.unwrap(self.value), FunctionType):
            return "function"
        return "module" if inspect.ismodule(self.value) else "data"

    @property
    def text(self) -> str:
        """Its docstring; for a constant the string below it."""
        if self.kind != "data":
            return self.value.__doc__ or ""
        comments = ModuleAnalyzer.for_module(self.home).find_attr_docs()
        return "\n".join(comments.get(("", self.attribute), []))


def entry(page: str, name: str) -> Entry:
    """Find out where a name that a page lists is defined."""
    module = importlib.import_module(page)
    value = getattr(module, name)
    if inspect.ismodule(value):
        return Entry(page, name, value.__name__, "", value)
    code = inspect.unwrap(value)
    if isinstance(code, (type, FunctionType)):
        return Entry(page, name, code.__module__, code.__qualname__, value)
    home, _, attribute = getattr(module, "_HOMES", {}).get(name, "").partition(":")
    return Entry(page, name, f"{page}.{home}" if home else page, attribute or name, value)


def listed(page: str) -> list[Entry]:
    """Every name that a page lists."""
    names = PAGES[page].split() or importlib.import_module(page).__all__
    return [entry(page, name) for name in names if name != "__version__"]


ENTRIES: dict[str, Entry] = {}
"""Address of a definition -> its one entry."""
for every in (found for page_name in PAGES for found in listed(page_name) if found.kind != "module"):
    ENTRIES.setdefault(f"{every.home}.{every.attribute}", every)


def exists(dotted: str) -> bool:
    """Whether a module, or what can be reached from one by attributes and annotated fields, has this name."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        break
    else:
        return False
    for number, part in enumerate(parts[cut:], cut + 1):
        if not hasattr(value, part):
            classes = value.__mro__ if isinstance(value, type) else ()
            return number == len(parts) and any(part in inspect.get_annotations(cls) for cls in classes)
        value = getattr(value, part)
    return True


def in_full(name: str, module: str, owner: str = "") -> str:
    """Address of what a docstring of a module, or of a class in it, names in short; empty if there is none."""
    found = vars(importlib.import_module(module))
    classes = [key for key, value in found.items() if isinstance(value, type) and value.__module__ == module]
    prefixes = [*([f"{module}.{owner}."] if owner else []), f"{module}.", *(f"{module}.{cls}." for cls in classes), ""]
    return next((prefix + name for prefix in prefixes if exists(prefix + name)), "")


def spell_out(text: str, module: str, owner: str = "") -> str:
    """Give the references of a docstring in full: it is shown on another page than that of its module."""

    def address(match: re.Match[str]) -> str:
        role, mark, name = match.groups()
        full = in_full(name, module, owner)
        shown = name.rpartition(".")[2] if mark else name
        return match[0] if full in ("", name) else f"{role}{shown} <{full}>"

    return ROLE.sub(address, text)


def on_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Spell out what a docstring refers to, before Sphinx reads it."""
    page = next((page for page in sorted(PAGES, key=len, reverse=True) if name.startswith(f"{page}.")), "")
    if page:
        first = name.removeprefix(f"{page}.").split(".")[0]
        known = entry(page, first)
        owner = known.attribute if known.kind == "class" else ""
        lines[:] = spell_out("\n".join(lines), known.home, owner).split("\n")


def on_missing(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Any) -> Any:
    """Lead from the address of a definition to its entry; show what exists and has none without a link."""
    target = node["reftarget"]
    if node["refdomain"] != "py" or not exists(target):
        return None
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        known = ENTRIES.get(".".join(parts[:cut]))
        if known is None:
            continue
        address = ".".join([known.page, known.name, *parts[cut:]])
        if address != target:
            python = env.domains["py"]
            return python.resolve_xref(env, node["refdoc"], app.builder, "obj", address, node, shown) or shown
    return shown


def broken_references() -> Iterator[str]:
    """References in the sources, those of private modules too, to what does not exist."""
    for info in pkgutil.walk_packages(ddplug.__path__, "ddplug."):
        if "._" in info.name:
            continue
        source = inspect.getsource(importlib.import_module(info.name))
        for _, _, name in ROLE.findall(source):
            if not re.fullmatch(rf"({FOREIGN})(\..*)?", name) and not in_full(name, info.name):
                yield f"{info.name} refers to {name}"


def promise(cls: type, name: str) -> str | None:
    """Docstring of a method in the protocol that a class keeps; such classes need not inherit from it."""
    for protocol in (Distiller, Callback, Codec):
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


def undocumented(known: Entry) -> Iterator[str]:
    """Dotted names of an entry and its members that have no docstring of their own."""
    dotted = f"{known.page}.{known.name}"
    # a dataclass without a docstring gets its signature for one
    if not known.text or (isinstance(known.value, type) and known.text.startswith(f"{known.attribute}(")):
        yield dotted
    if isinstance(known.value, type):
        yield from (f"{dotted}.{member}" for member, text in class_members(known.value) if not text)


def described(known: Entry) -> list[str]:
    """The directive that describes one entry."""
    dotted = f"{known.page}.{known.name}"
    if known.kind != "data":
        members = ["   :members:", "   :show-inheritance:"] if known.kind != "function" else []
        return [f".. auto{known.kind}:: {dotted}", *members, ""]
    value = [f"   :value: {known.value!r}"] if len(repr(known.value)) < 100 else []
    text = spell_out(known.text, known.home).splitlines()
    return [f".. py:data:: {known.name}", f"   :module: {known.page}", *value, "", *(f"   {line}" for line in text), ""]


def api_page(page: str) -> str:
    """The page of a face or a module: its own docstring, its entries, and links to what has its entry elsewhere."""
    own, links = [], []
    for known in listed(page):
        main = ENTRIES.get(f"{known.home}.{known.attribute}", known)
        if known.kind == "module":
            links.append(f"- {{py:mod}}`{known.home}`")
        elif main == known:
            own += described(known)
        elif main.name == known.name:
            links.append(f"- {{py:obj}}`~{main.page}.{main.name}`, in `{main.page}`")
        else:
            links.append(f"- `{known.name}`: an earlier name of {{py:obj}}`~{main.page}.{main.name}`")
    lines = [f"# {page}", "", "```{eval-rst}", f".. automodule:: {page}", "   :no-members:", "", *own, "```", ""]
    return "\n".join([*lines, *links, ""])


def write(path: Path, text: str) -> None:
    """Write a generated page, unless it stands there already: Sphinx then need not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def complain() -> Iterator[str]:
    """What is wrong with the package's documentation before Sphinx has seen it."""
    for name in [name for known in ENTRIES.values() for name in undocumented(known)]:
        yield f"{name} is public and has no docstring"
    yield from broken_references()
    pages = "".join(path.read_text() for path in sorted((HERE / "methods").glob("*.md")))
    for point in entry_points(group=GROUPS["distiller"]):
        if point.value.startswith("ddplug.") and f"`{point.name}`" not in pages:
            yield f"distiller {point.name!r} is registered and has no page in docs/methods"


def generate(app: Sphinx) -> None:
    """Write the pages that are made; warn of what is undocumented or does not exist."""
    for stale in set(GENERATED.glob("api/*.md")) - {GENERATED / "api" / f"{page}.md" for page in PAGES}:
        stale.unlink()
    for name in PAGES:
        write(GENERATED / "api" / f"{name}.md", api_page(name))
    for name in NOTEBOOKS:
        write(GENERATED / "notebooks" / f"{name}.md", notebook(name, GENERATED / "notebooks"))
    write(GENERATED / "benchmarks.md", benchmarks(HERE / "benchmarks"))
    write(GENERATED / "gallery.md", gallery(GENERATED / "gallery"))
    draw(HERE / "benchmarks", GENERATED)
    for complaint in complain():
        log.warning(complaint)


def setup(app: Sphinx) -> None:
    """Hook in the generated pages, before Sphinx looks for sources, and the references."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("missing-reference", on_missing)
