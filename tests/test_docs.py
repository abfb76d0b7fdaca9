"""The documentation: YAML blocks are loaded, commands and names exist, examples work."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import pytest
import yaml
from typer.main import get_command

import climlstm
from climlstm.cli import app
from climlstm.config import Config
from climlstm.config.plain_yaml import TextDatesLoader
from climlstm.data.sources.entries import read_catalog
from tests.advice import texts
from tests.house import ROOT, trees

DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "*/*.md", "docs/howto/*.md", "docs/tutorials/*.md", "plugins/*/*.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith((".", "demo", "runs"))
)

BASE = """
name: base
data:
  {catalog: c.yaml, source: s, step: 6h, state: [t2m, msl, sst], forcing: [season],
   static: [land_mask], periods: {train: [2000-01-01, 2000-12-31], valid: [2001-01-01, 2001-12-31],
   test: [2002-01-01, 2002-12-31]}}
"""
"""A run file around the keys that a page shows alone."""

OTHERS = frozenset(
    {"pip", "make", "python", "ray", "torchrun", "kubectl", "sbatch", "pytest", "export", "git"}
)
"""Programs that pages name beside climlstm."""


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages):
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            if match[1] in languages:
                line = text[: match.start()].count("\n") + 1
                found.append(Block(page.relative_to(ROOT).as_posix(), line, match[1], match[2]))
    return found


def merged(base, more):
    """A mapping with another's keys laid over it, section by section."""
    out = dict(base)
    for key, value in more.items():
        both = isinstance(out.get(key), dict) and isinstance(value, dict)
        out[key] = merged(out[key], value) if both else value
    return out


def parts_of(text):
    """Documents of a block: it may hold a catalog and a run file, one after the other."""
    content = yaml.load(text, TextDatesLoader)
    assert isinstance(content, dict), text
    catalog = {"sources": content.pop("sources")} if "sources" in content else None
    return catalog, content


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_a_yaml_block_is_a_catalog_or_part_of_a_run_file(block, tmp_path):
    catalog, run = parts_of(block.text)
    if catalog is not None:
        path = tmp_path / "catalog.yaml"
        path.write_text(yaml.safe_dump(catalog))
        assert set(read_catalog(str(path))) == set(catalog["sources"])
    if run:
        base = yaml.load(BASE, TextDatesLoader)
        Config.model_validate(run if {"name", "data"} <= set(run) else merged(base, run))


def commands(text):
    """Commands of a shell block: lines joined, comments, here-documents and pipes taken off."""
    text = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and "|" in words:
            words = words[: words.index("|")]
        if words:
            yield words


def follow(words):
    """Parse a command of climlstm as far as its options go; files need not be there."""
    command = get_command(app)
    while hasattr(command, "list_commands"):
        name, *words = words
        inner = command.get_command(None, name)
        assert inner is not None, f"there is no command '{name}'"
        command = inner
    known = {
        name for parameter in command.params for name in parameter.opts + parameter.secondary_opts
    }
    unknown = {w.partition("=")[0] for w in words if re.match(r"--[a-z]", w)} - known
    assert not unknown, f"{sorted(unknown)} of 'climlstm {command.name}'"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    given, left, _ = command.make_parser(command.context_class(command)).parse_args(list(words))
    assert not left, f"{left} after the arguments of 'climlstm {command.name}'"
    assert all(given.get(each.name) for each in arguments if each.required), words


@pytest.mark.parametrize("block", blocks("sh", "bash", "console"), ids=str)
def test_commands_of_a_shell_block_exist(block):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for words in commands(block.text):
        program, *rest = words
        if program == "climlstm":
            follow(rest)
        elif program == "make":
            assert {word for word in rest if "=" not in word} <= set(targets), rest
        elif program == "pip":
            named = re.findall(r"climlstm\[([\w,]+)\]", " ".join(rest))
            assert {extra for each in named for extra in each.split(",")} <= set(extras), rest
        else:
            assert program in OTHERS, f"{program} is no program that a reader has"


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_names_in_a_python_block_exist(block):
    tree = ast.parse(block.text)
    modules = {"climlstm": climlstm}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("climlstm"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(
                    f"{node.module}.{alias.name}"
                )
                modules[alias.asname or alias.name] = getattr(module, alias.name, module)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files(page):
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "mailto:", "#")):
            continue
        path = target.partition("#")[0]
        made = re.search(r"reference/\w+\.md$|tutorials/\w+\.ipynb$", path)
        assert made or (page.parent / path).exists(), target


@pytest.fixture(scope="module")
def pages():
    """docs/pages.py, which makes pages from the code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        yield importlib.import_module("pages")


@pytest.fixture
def run_file_pages(pages):
    """Its part for the run file."""
    return importlib.import_module("pages_run_file")


def test_every_key_has_a_meaning_and_an_example_that_loads(run_file_pages):
    first, second = run_file_pages.examples()
    Config.model_validate(first)
    alone = first | {"data": {k: v for k, v in first["data"].items() if k != "prescribed"}}
    Config.model_validate(merged(alone, second))
    page = run_file_pages.run_file_page()
    keys = [key for key, _ in run_file_pages.each_key()]
    assert len(keys) > 90
    for key in keys:
        heading = re.search(rf"^##+ `?{re.escape(key)}`?\n\n(.*)$", page, re.MULTILINE)
        assert heading, key
        assert heading[1], f"{key} is not explained"


def test_every_score_has_a_formula_and_nothing_else_has(pages):
    formulas = yaml.safe_load((DOCS / "formulas.yaml").read_text(encoding="utf-8"))
    assert set(formulas) == set(importlib.import_module("pages_plugins").offered("evaluators"))
    page = pages.scores_page()
    for name in formulas:
        assert f"\n## evaluator `{name}`\n" in page


def test_every_command_and_public_name_is_on_its_page(pages):
    made = pages.made_pages()
    for name, _ in pages.each_command(get_command(app)):
        assert f"\n## climlstm {name}\n" in made["commands"]
    for name in climlstm.__all__[1:]:
        assert f"\n## climlstm.{name}\n" in made["python"]


def test_errors_that_are_explained_are_raised_somewhere():
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 25
    said = " ".join(text for tree in trees().values() for _, text in texts(tree))
    said = re.sub(r"\s+", " ", said)
    for message in messages:
        for piece in message.split("…"):
            assert piece.strip() in said, piece


def test_the_readme_is_one_screen_and_a_half():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("myst_nb", reason="needs the dependency group docs")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", DOCS, tmp_path / "site"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    html = list((tmp_path / "site").rglob("*.html"))
    assert len(html) > 40
    elsewhere = r"=\"(?:https?:)?//"
    loads = re.compile(
        rf"<(?:script|img|iframe)[^>]*\ssrc{elsewhere}"
        rf"|<link[^>]*rel=\"(?:stylesheet|preload)\"[^>]*href{elsewhere}"
    )
    for page in html:
        assert not loads.search(page.read_text(encoding="utf-8")), page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"@import[^;]*//|url\([\"']?(?:https?:)?//", style.read_text()), style


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["docs/start.md", "docs/howto/grids.md"])
def test_a_page_is_followed_to_its_end(page, tmp_path):
    """Its files are written, and its commands run, in order."""
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    text = (ROOT / page).read_text(encoding="utf-8")
    steps = re.finditer(
        r"(?:`(\w+\.yaml)`:\n\n)?^```(sh|yaml)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    for step in steps:
        if step[2] == "yaml":
            if step[1]:
                (tmp_path / step[1]).write_text(step[3])
            continue
        if "pip install" in step[3]:
            continue
        script = "set -e\n" + step[3].replace("climlstm ", f"{sys.executable} -m climlstm ")
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{step[3]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert list(tmp_path.rglob("*.zarr"))
