"""Shows examples, READMEs, results, the changelog and the license as pages of the site.

Each file is copied to `docs/repository`, and links to the file lead to its copy. Links
to all other files outside of `docs` lead to the repository.
"""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
COPIES = DOCS / "repository"
FOLDERS = ("benchmarks", "examples", "native", "tests")
# Sphinx names a page without its suffix: `ppo.py` and `ppo.md` need different names.
SUFFIXES = {".md": ".copy", ".py": "_py.copy", "": ".copy"}
ORPHAN = "---\norphan: true\n---\n"  # The navigation need not list it.
FILES = "https://github.com/jaxrnn/jaxrnn/blob/main"
LINK = re.compile(r"(!?\[[^\]]*\]\()([\w./-]+)((?:#[^)]*)?\))")


def copied() -> dict[pathlib.Path, pathlib.Path]:
    """The copies, and the files that they are copies of."""
    files = [file for file in ROOT.glob("*.md") if file.name != "README.md"]
    files += [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.md")]
    files += [*(ROOT / "examples").rglob("[!_]*.py"), ROOT / "LICENSE"]
    copies = {file: COPIES / file.relative_to(ROOT) for file in files}
    return {
        copy.with_name(copy.stem + SUFFIXES[copy.suffix]): file
        for file, copy in copies.items()
    }


def content(file: pathlib.Path) -> str:
    """The text of a page; code becomes a block below the file's name."""
    text = file.read_text()
    if file.suffix == ".md":
        return f"{ORPHAN}{text}"
    language = "python" if file.suffix == ".py" else "text"
    return f"{ORPHAN}# {file.relative_to(ROOT)}\n\n```{language}\n{text}```\n"


def write_copies(app: object) -> None:
    """Write the copies, and delete those of files that are gone."""
    copies = copied()
    for copy in {*COPIES.rglob("*.copy")} - {*copies}:
        copy.unlink()
    for copy, file in copies.items():
        text = content(file)
        if not copy.exists() or copy.read_text() != text:  # Sphinx reads what changed.
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text)


def lead_links(app: object, page: str, source: list[str]) -> None:
    """Lead the links of a page to copies, to other pages, or to the repository."""
    place = pathlib.Path(app.env.doc2path(page))
    copies = copied()
    origin, targets = copies.get(place, place), {v: k for k, v in copies.items()}

    def lead(link: re.Match) -> str:
        file = (origin.parent / link[2]).resolve()
        if not file.exists() or (origin == place and file.is_relative_to(DOCS)):
            return link[0]
        if file in targets or file.is_relative_to(DOCS) or link[1].startswith("!"):
            target = os.path.relpath(targets.get(file, file), place.parent)
        elif file == ROOT / "README.md":
            target = os.path.relpath(DOCS / "index.md", place.parent)
        else:
            target = f"{FILES}/{file.relative_to(ROOT)}"
        return f"{link[1]}{target}{link[3]}"

    source[0] = LINK.sub(lead, source[0])


def setup(app: object) -> dict:
    """Connect the hooks."""
    app.connect("builder-inited", write_copies)
    app.connect("source-read", lead_links)
    return {"parallel_read_safe": True}
