"""The page about a run: whole in one file, true to the run, in any state of it, and readable by everyone."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import TINY
from omegaconf import OmegaConf

from wgan_lip.cli import main
from wgan_lip.inspection.findings import RULES
from wgan_lip.inspection.look import look_at
from wgan_lip.inspection.pages import run_page
from wgan_lip.inspection.pages.page import Section, page, table
from wgan_lip.runs.run import Run
from wgan_lip.utils.numbers import rounded_down, rounded_up

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Outline(HTMLParser):
    """What a page is made of; refuses tags that are closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, *tags: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def check_whole_and_readable(text: str) -> Outline:
    outline = Outline(text)
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels)), "a heading's level is skipped"
    assert outline.all("html")[0]["lang"] == "en" and outline.all("title") and outline.all("main")
    assert all(image["alt"] for image in outline.all("img"))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in outline.all("svg"))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id is there twice"
    targets = {f"#{name}" for name in ids}
    for _, attributes in outline.elements:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "data:").startswith(("data:", "#"))
            assert not attributes.get(key, "").startswith("#") or attributes[key] in targets, attributes[key]
        assert not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'" in text and "@import" not in text
    for address in re.findall(r"https?://[^\"'\s<>)]+", text):
        assert address.startswith("http://www.w3.org/"), f"{address} is no name of a format"
    assert all(heading["scope"] for heading in outline.all("th"))
    assert len(outline.all("caption")) == len(outline.all("table"))
    return outline


@pytest.fixture(scope="module")
def plane_run(tmp_path_factory):
    """A run on the plane."""
    directory = tmp_path_factory.mktemp("plane") / "run"
    assert main(["train", "data=moons", *TINY, f"hydra.run.dir={directory}"]) == 0
    return directory


@pytest.fixture(scope="module")
def pages(tiny_run, plane_run) -> dict[str, str]:
    """Pages about a run on images and one on the plane."""
    return {name: run_page(look_at(Run(run))) for name, run in (("images", tiny_run), ("plane", plane_run))}


@pytest.mark.parametrize("kind", ["images", "plane"])
def test_a_page_is_whole_and_readable_without_sight(pages, kind):
    outline = check_whole_and_readable(pages[kind])
    assert not outline.all("script", "iframe", "object", "embed")
    assert len(outline.all("svg")) >= 3 and outline.all("img")
    assert len(pages[kind]) < 3_000_000


def test_a_page_says_that_a_copy_was_fitted_only_where_one_was(tiny_run, tmp_path):
    shutil.copytree(tiny_run, folder := tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    for as_trained, told in ((0.5 * summary["interval"]["lower"], True), (summary["interval"]["lower"], False)):
        summary["interval"]["lower_as_trained"] = as_trained
        (folder / "summary.json").write_text(json.dumps(summary))
        assert ("by the trained critic, not refitted" in run_page(look_at(Run(folder)))) == told


def test_a_page_tells_the_run(pages, tiny_run):
    text = " ".join(" ".join(Outline(pages["images"]).text).split())
    run = Run(tiny_run)
    summary, looked = run.summary, look_at(run)
    assert f"{rounded_down(summary['interval']['lower'])} ≤ W1" in text
    assert rounded_up(summary["interval"]["upper"]) in text
    assert looked.certificate.weights_sha256 in text and looked.certificate.units in text
    for layer in looked.certificate.layers:
        assert layer.path in text and layer.method in text
    for finding in looked.findings:
        assert finding.remedy in text
    assert all(rule.statement in text for rule in RULES)
    assert "training.audit_every" in text and run.status["versions"]["torch"] in text
    assert TINY[0] in text, "the command it was started by"
    for compared in summary["scores"].values():
        assert all(f"{name.replace('_', ' ')}, " in text for name in compared["values"])


def test_what_came_from_a_run_is_never_markup(tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "<img src=x onerror=alert(1)>")
    (copy / "overrides.json").write_text(json.dumps(["</pre><script>alert(1)</script>"]))
    status = json.loads((copy / "status.json").read_text())
    (copy / "status.json").write_text(json.dumps(status | {"state": '"><b>', "reason": "<b>why</b>"}))
    config = OmegaConf.load(copy / "config.yaml")
    config.critic_optimizer = {"_target_": "<script>", "lr": "&amp;"}
    OmegaConf.save(config, copy / "config.yaml")
    text = run_page(look_at(Run(copy)))
    outline = check_whole_and_readable(text)
    assert not outline.all("script", "b") and "<img src=x" not in text and "&amp;amp;" in text


def _without(*names):
    return lambda run: [(run / name).unlink() for name in names]


def _cut(name):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-20])


STATES = {
    "running, the last lines half written": lambda run: [
        _without("summary.json")(run), _set_status(run, "running"), _cut("metrics.jsonl")(run),
        [_cut(path.name)(run) for path in run.glob("events*")],
    ],
    "failed, and nothing but the checkpoint is whole": lambda run: [
        _without("summary.json", "overrides.json")(run), _set_status(run, "failed"),
        [path.write_bytes(b"") for path in run.glob("events*")],
    ],
    "before the first checkpoint": _without("summary.json", "checkpoint.pt"),
    "before the first record": _without("summary.json", "checkpoint.pt", "metrics.jsonl"),
    "checkpoint cut short, no status": lambda run: [_cut("checkpoint.pt")(run), _without("status.json")(run)],
}  # fmt: skip


def _set_status(run: Path, state: str) -> None:
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": state}))


@pytest.mark.parametrize("state", STATES)
def test_a_run_in_any_state_has_its_page(plane_run, tmp_path, state, capsys):
    copy = shutil.copytree(plane_run, tmp_path / "run")
    (copy / "report.html").unlink(missing_ok=True)
    STATES[state](copy)
    assert main(["inspect", f"run={copy}"]) == 0
    captured = capsys.readouterr()
    assert f"Report                {copy}/report.html" in captured.out and captured.err == ""
    text = (copy / "report.html").read_text(encoding="utf-8")
    outline = check_whole_and_readable(text)
    if "first" in state or "checkpoint cut" in state:
        assert "No certificate could be proved" in text
    else:
        assert "weights when this page was written" in text and outline.all("img")


def test_data_that_are_gone_leave_their_place_to_the_reason(tiny_run):
    looked = look_at(Run(tiny_run), data=False)
    text = run_page(looked)
    check_whole_and_readable(text)
    assert "t be shown beside generated ones: open_data is false" in text and "generated images in a grid" in text
    vectors = dataclasses.replace(looked, generated=None, problem="its <checkpoint> is gone")
    assert "its &lt;checkpoint&gt; is gone" in run_page(vectors)


def test_the_page_goes_where_it_is_asked_to_or_nowhere(plane_run, tmp_path, capsys):
    copy = shutil.copytree(plane_run, tmp_path / "run")
    for out, told in (("null", None), (str(tmp_path / "x.html"), tmp_path / "x.html"), ("x.html", copy / "x.html")):
        assert main(["inspect", f"run={copy}", f"out={out}", "open_data=false"]) == 0
        assert ("Report " in capsys.readouterr().out) == (told is not None)
        assert told is None or told.read_text().startswith("<!DOCTYPE html>")
    assert not (copy / "report.html").exists()
    assert main(["inspect", f"run={copy}", "out=nowhere/x.html", "open_data=false"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere/x.html can't be written: No such file or directory. Give another file by out=" in line


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(plane_run, monkeypatch, capsys):
    from wgan_lip.inspection import report as reporting

    def read_only(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reporting, "write_whole", read_only)
    assert main(["inspect", f"run={plane_run}", "open_data=false"]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert "can't be written: Permission denied. Give another file by out=" in line and "Re-proved now" in captured.out


def colours(scheme: str) -> dict[str, str]:
    """The colours of light, dark or print."""
    css = (
        Path(__import__("wgan_lip").__file__)
        .with_name("inspection")
        .joinpath("pages", "page.css")
        .read_text(encoding="utf-8")
    )
    start = {"light": ":root", "dark": "(prefers-color-scheme: dark)", "print": "@media print"}[scheme]
    block = css[css.index(start) :]
    return dict(re.findall(r"--(\w+):\s*(#[0-9a-f]+)", block[block.index(":root") : block.index("}")]))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Of WCAG 2.2: 4.5 is asked of text, 3 of drawings."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_measured_as_the_standard_defines_it():
    assert contrast("#000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_every_colour_stands_out(scheme):
    palette = colours(scheme)
    for paper in ("paper", "shade"):
        for text in ("ink", "soft", "link", "warn", "note", "good"):
            assert contrast(palette[text], palette[paper]) >= 4.5, (text, paper)
        for drawn in ("band", "mark", "warn", "note"):
            assert contrast(palette[drawn], palette[paper]) >= 3, (drawn, paper)
    for drawn in ("#0072B2", "#D55E00"):  # of the figures, on either page
        assert contrast(drawn, palette["paper"]) >= 3, drawn


PROBE = """
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, view = frame.contentWindow;
  const number = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (rgb) => { const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (element) => { for (let at = element; at; at = at.parentElement) {
    const rgb = number(view.getComputedStyle(at).backgroundColor); if (rgb.length === 3 || rgb[3] === 1) return rgb.slice(0, 3); }
    return [255, 255, 255]; };
  const faint = [];
  let seen = 0;
  const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !parent.checkVisibility() || parent.closest("svg, script")) continue;
    const [a, b] = [light(number(view.getComputedStyle(parent).color).slice(0, 3)), light(behind(parent))].sort((x, y) => x - y);
    seen += 1;
    if ((b + .05) / (a + .05) < 4.5) faint.push(text.slice(0, 40));
  }
  const wide = [...page.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, pre, details:not([open])")
    && e.getBoundingClientRect().right > view.innerWidth + 1).map((e) => e.tagName);
  const broken = [...page.images].filter((image) => !image.naturalWidth).map((image) => image.alt);
  const found = JSON.stringify({ seen, faint, wide, broken, paper: behind(page.body),
    across: page.documentElement.scrollWidth - view.innerWidth });
  document.body.innerHTML = "<pre id=found></pre>";
  document.querySelector("pre").textContent = found;
});
"""


def browse(address: str, folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1280,900",
        f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--disable-background-networking", *options, address,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def probe(text: str, folder: Path, *, width: int, dark: bool) -> dict:
    """Opens a page in a frame of a width, and measures what is seen there."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    inner = html.escape(text.replace("(prefers-color-scheme: dark)", "all" if dark else "not all"))
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{inner}"></iframe>'
    (folder / "probe.html").write_text(f"<!DOCTYPE html><meta charset=utf-8><script>{PROBE}</script>{frame}", "utf-8")
    done = browse((folder / "probe.html").as_uri(), folder, "--dump-dom")
    found = re.search(r"<pre id=\"found\">(.*?)</pre>", done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to see the page as a reader does")
@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "with a request in it"])
def test_a_browser_opens_the_page_without_a_complaint_or_a_request(pages, tmp_path, broken):
    """The page's own policy allows no request, and the browser complains of every one that is tried."""
    text = pages["plane"].replace("<main>", '<main><img src="http://localhost/x.png" alt="x">' if broken else "<main>")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    done = browse((tmp_path / "report.html").as_uri(), tmp_path, f"--screenshot={tmp_path / 'seen.png'}")
    assert (tmp_path / "seen.png").stat().st_size > 20_000
    assert ("CONSOLE" in done.stderr) == broken, done.stderr
    assert not broken or "Content Security Policy" in done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to see the page as a reader does")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (380, True)], ids=["wide and light", "narrow and dark"])
def test_a_browser_shows_everything_in_the_width_there_is_and_in_contrast(pages, tmp_path, width, dark):
    found = probe(pages["images"], tmp_path, width=width, dark=dark)
    assert found["seen"] > 60 and found["faint"] == [] and found["broken"] == []
    assert found["wide"] == [] and found["across"] <= 0
    assert (sum(found["paper"]) < 200) == dark


def test_a_table_keeps_what_it_is_sorted_by():
    text = page("x", "", [Section("Rows", table("Some", ("a", "b"), [("1", "<2>")], sortable=True))], sortable=True)
    outline = check_whole_and_readable(text)
    assert len(outline.all("script")) == 1 and "script-src 'sha256-" in text and "&lt;2&gt;" in text
