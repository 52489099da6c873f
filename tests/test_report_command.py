"""`melcache report`: one page that holds everything."""

import html.parser
import re

import numpy as np
import pytest

from tfdata import layout


@pytest.fixture(scope="module")
def other_clips(orchestra, melcache_json, tmp_path_factory):
    output = tmp_path_factory.mktemp("other") / "clips"
    melcache_json("prepare", f"--input={orchestra}/*/*_*_mf.*", f"--output={output}")
    return output


class Page(html.parser.HTMLParser):
    """Collects a page's text and what it refers to, and checks that its elements close."""

    VOID = {"meta", "link", "br", "img", "input", "use", "path", "rect", "image"}

    def __init__(self):
        super().__init__()
        self.text, self.references, self.open, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_file_that_holds_everything(run_dir, clips_dir, features_dir, melcache_json, tmp_path):
    told = melcache_json("report", f"--run={run_dir}", f"--output={tmp_path}/report.html")
    text = (tmp_path / "report.html").read_text()
    assert told["output"] == f"{tmp_path}/report.html"
    page = Page()
    page.feed(text)
    assert not page.open and len(page.ids) == len(set(page.ids))
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert not re.search(r"<script|<link|@import|url\((?!['\"]?#)", text)
    words = " ".join(page.text)
    fingerprints = [layout.read_spec(str(directory)).fingerprint for directory in (clips_dir, features_dir)]
    results = ["Random weights", "setup4", "0.77", "logistic regression, raw log-mel", "Confusion matrix"]
    data = ["oboe/empty.mp3", "seconds", "Hz"]
    parity = ["Features checked against ones computed anew, 8 clips"]
    commands = ["melcache prepare", "melcache cache", "melcache heads", "melcache report"]
    for expected in results + data + parity + commands + fingerprints:
        assert expected in words, expected
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_the_report_needs_no_tensorflow():
    import pathlib
    import subprocess
    import sys

    code = (
        "import launch.report_page, sys; print([m for m in ('tensorflow', 'keras', 'apache_beam') if m in sys.modules])"
    )
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_report_without_heads_or_of_other_datasets_is_refused(run_dir, other_clips, melcache, tmp_path):
    done = melcache("report", f"--run={tmp_path}")
    assert done.returncode == 1 and f"no finished heads in {tmp_path}" in done.stderr
    done = melcache("report", f"--run={run_dir}", f"--data={other_clips}", f"--output={tmp_path}/r.html")
    assert done.returncode == 1 and f"{other_clips} is" in done.stderr and not (tmp_path / "r.html").exists()


def test_hostile_names_are_shown_as_text(orchestra, melcache_json, tmp_path):
    """A class called like a tag must not become one."""
    from launch import report_pictures

    svg = report_pictures.log_mel_pictures(
        [(title, np.zeros((128, 12), np.float32)) for title in ("<script>alert(1)</script> & \"", "$x^$")],
        {"sample_rate_hz": 12_000, "n_fft": 2048, "hop_length": 1024, "fmin_hz": 0.0, "fmax_hz": 6000.0},
    )  # fmt: skip
    assert "<script" not in svg
    Page().feed(svg)
