import base64
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from echogen.cli import app
from echogen.commands.expand import expand
from echogen.commands.stats import measure
from echogen.errors import UsageError
from echogen.measures.report import Measurements, Origin, StatsReport
from echogen.pictures.choice import Choice
from echogen.pictures.page import Gallery, render, write_report
from tests.support.hearts import make_config

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
HOSTILE = '<script>alert(1)</script>"onerror=x'

LOOK = """<!DOCTYPE html><iframe id=f src=report.html style="width:{width}px;height:900px;border:0">
</iframe><pre id=found>waiting</pre><script>
f.onload = () => {{
  const page = f.contentDocument, root = page.documentElement;
  const images = [...page.images];
  found.textContent = JSON.stringify({{
    wide: Math.max(root.scrollWidth, page.body.scrollWidth), images: images.length,
    decoded: images.filter(i => i.complete && i.naturalWidth > 0).length,
    described: images.filter(i => i.alt).length,
    title: page.title, scripts: page.scripts.length,
    sections: [...page.querySelectorAll("nav a")].map(
      a => !!page.querySelector(a.getAttribute("href"))),
    paper: getComputedStyle(page.body).backgroundColor,
  }});
}};</script>"""


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory, dataset: Path, checkpoint: Path
) -> tuple[StatsReport, Measurements]:
    output = tmp_path_factory.mktemp("html") / "out.zarr"
    settings = {
        "input": str(dataset), "output": str(output), "copies": 3, "checkpoint": str(checkpoint),
        "engine": {"device": "cpu", "precision": "fp32"},
        "sampler": {"name": "repaint", "steps": 4, "jump_length": 2, "resamplings": 2},
    }  # fmt: skip
    expand(make_config(settings))
    return measure(output, against=dataset)


@pytest.fixture(scope="module")
def page(
    measured: tuple[StatsReport, Measurements], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(*measured, path)
    return path


class Links(HTMLParser):
    """Everything that a page points at."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_points_at_nothing_outside_itself(page: Path) -> None:
    links = Links()
    text = page.read_text(encoding="utf-8")
    links.feed(text)
    assert len(links.found) > 20
    assert all(link.startswith(("#", "data:image/")) for link in links.found)
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_its_pictures_are_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    kinds = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)"', text)
    assert {kind for kind, _ in kinds} == {"jpeg", "svg+xml"}
    for kind, content in kinds:
        decoded = base64.b64decode(content, validate=True)
        if kind == "jpeg":
            with Image.open(io.BytesIO(decoded)) as picture:
                picture.load()
        else:
            assert decoded.rstrip().endswith(b"</svg>")


def test_figures_of_the_report_stand_in_the_page(
    measured: tuple[StatsReport, Measurements], page: Path
) -> None:
    report, text = measured[0], page.read_text(encoding="utf-8")
    area = next(one for one in report.features if one.feature == "cavity_area")
    assert f"{area.groups['originals'].median:,.0f} (" in text
    assert f"{report.volumes[0].edv_ml:,.1f}" in text
    assert "CC0-1.0" in text
    assert "Worst by seam and texture" in text
    assert report.provenance.facts["plan"] in text


def test_one_report_is_one_page(
    measured: tuple[StatsReport, Measurements], page: Path, tmp_path: Path
) -> None:
    write_report(*measured, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    write_report(*measured, tmp_path / "other.html", Choice(seed=1))
    assert (tmp_path / "other.html").read_bytes() != page.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.html", "other.html"]


def test_hostile_names_stay_text(measured: tuple[StatsReport, Measurements]) -> None:
    report = replace(
        measured[0],
        path=f"/data/{HOSTILE}.zarr",
        against=HOSTILE,
        counts={HOSTILE: {HOSTILE: 3}},
        provenance=Origin(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, ((HOSTILE, HOSTILE),)),
    )
    gallery = Gallery(HOSTILE, ((HOSTILE, HOSTILE, [(HOSTILE, "data:image/png;base64,")]),))
    text = render(report, {}, [gallery])
    assert "<script" not in text
    assert '"onerror' not in text
    assert text.count("&lt;script&gt;") >= 10


def test_a_page_that_cannot_be_written_is_one_line(
    measured: tuple[StatsReport, Measurements], tmp_path: Path
) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UsageError, match=r"report\.html: cannot be written"):
        write_report(*measured, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_dataset_has_a_page_too(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames.html"
    done = CliRunner().invoke(app, ["stats", str(dataset), "--html", str(out), "--phases", "ED"])
    assert done.exit_code == 0, done.output
    text = out.read_text(encoding="utf-8")
    assert "patient0001_4CH_ED" in text
    assert "_ES" not in text
    assert "Realism" not in text


@pytest.fixture(scope="module")
def site(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The page and one that looks at it, and what was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(page.parent))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on this machine")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it_without_network_or_overflow(
    site: tuple[str, list[str]], page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    address, asked = site
    name = f"look{width}{dark}.html"
    (page.parent / name).write_text(LOOK.format(width=width))
    asked.clear()
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={tmp_path}", "--window-size=1400,1000",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []), f"{address}/{name}",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = re.search(r"<pre id=\"found\">(.*?)</pre>", done.stdout, re.S)
    assert told is not None, done.stdout[-500:]
    found = json.loads(told[1].replace("&amp;", "&"))
    assert found["wide"] <= width
    assert found["images"] == found["decoded"] == found["described"] > 20
    assert found["scripts"] == 0
    assert all(found["sections"])
    assert len(found["sections"]) == 9
    assert found["title"] == "out.zarr: what is in it"
    assert found["paper"] == ("rgb(17, 19, 23)" if dark else "rgb(255, 255, 255)")
    assert set(asked) - {"/favicon.ico"} == {f"/{name}", "/report.html"}
