"""The command from end to end on a made DAVIS tree with two methods, and its report in a browser."""

import contextlib
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from osmn_tf.cli.main import main
from osmn_tf.evaluation import analysis
from osmn_tf.evaluation.benchmark import evaluate_results

from .conftest import MadeDavis, write_labels

pytest.importorskip("matplotlib", reason="a report needs the extra [report]")
pytest.importorskip("jinja2", reason="a report needs the extra [report]")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def good(name, t, mask):
    return np.roll(mask, 1, axis=1)


def drifting(name, t, mask):
    return np.roll(mask, 2 * t, axis=1)


def evaluate(davis, tmp_path, *more):
    arguments = ["evaluate", str(davis.root), "--out", str(tmp_path / "out"), "--workers", "1", *more]
    return main(arguments)


def two_methods(tmp_path):
    return ["--results", str(tmp_path / "good"), "--results", f"drifting <b>={tmp_path / 'other'}"]


@pytest.fixture
def results(davis, tmp_path):
    davis.write_results(tmp_path / "good", good)
    davis.write_results(tmp_path / "other", drifting)
    return davis


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(data set, folder, what was printed) of one run with two methods and a report."""
    folder = tmp_path_factory.mktemp("evaluated")
    davis = MadeDavis(folder / "DAVIS")
    davis.write_results(folder / "good", good)
    davis.write_results(folder / "other", drifting)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert evaluate(davis, folder, "--year", "2016", "--report", *two_methods(folder)) == 0
    return davis, folder, printed.getvalue()


def test_two_methods_from_the_command_line(evaluated):
    results, tmp_path, printed = evaluated
    assert "DAVIS 2016, val: sequences 2, objects 2" in printed
    assert printed.count("scores.json") == 2
    out = tmp_path / "out"
    row = (out / "good/global_results-val.csv").read_text().splitlines()[1].split(",")
    expected = evaluate_results(results.root, {"a": tmp_path / "good"}, protocol="davis-2016").methods[0]
    assert row[1] == f"{expected.j.mean:.3f}"
    assert f"{100 * expected.j.mean:10.1f}" in next(line for line in printed.splitlines() if line.startswith("good"))
    everything = json.loads((out / "drifting <b>" / "scores.json").read_text())
    assert everything["objects"]["alpha_1"]["per_frame"]["T"][0] is not None
    for name in ("sequences", "time", "errors"):
        image = cv2.imread(str(out / "figures" / f"{name}.png"))
        assert image.shape[1] > 1500
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    # Neither sequence is of DAVIS 2016: there are no attributes to report.
    assert not (out / "figures/attributes.png").exists()


class Links(html.parser.HTMLParser):
    """Collects what a page would load, and checks that elements are closed."""

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.loads += [names[key] for key in ("src", "href", "xlink:href") if key in names]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loads += [value for key, value in attributes if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file_and_marks_published_numbers(evaluated):
    page = (evaluated[1] / "out/report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.open == []
    assert all(link.startswith(("data:", "#")) for link in links.loads)
    assert not re.search(r"url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "drifting &lt;b&gt;" in page
    assert "drifting <b>" not in page
    assert 'class="published">79.4<' in page
    assert "not comparable" not in page
    assert page.count("data:image/jpeg") == 4


def test_published_numbers_of_other_sequences_are_called_so(results, tmp_path):
    (results.root / "ImageSets/2017/val.txt").rename(results.root / "ImageSets/2017/mine.txt")
    assert evaluate(results, tmp_path, "--report", "--split", "mine", "--results", str(tmp_path / "good")) == 0
    assert "on mine: other sequences, not comparable" in (tmp_path / "out/report.html").read_text()


def test_the_same_results_give_the_same_report(evaluated):
    davis, folder, _ = evaluated
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    evaluate(davis, folder, "--year", "2016", "--report", "--no-cache", *two_methods(folder))
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_before_anything_is_scored(results, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert evaluate(results, tmp_path, "--report", "--results", str(tmp_path / "good")) == 2
    assert f"needs the package '{package}'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_attributes_of_davis_2016(davis, tmp_path):
    for old, new in (("alpha", "bmx-trees"), ("beta", "camel")):
        for folder in ("Annotations", "JPEGImages"):
            (davis.root / folder / "480p" / old).rename(davis.root / folder / "480p" / new)
        davis.masks[new] = davis.masks.pop(old)
    (davis.root / "ImageSets/2016/val.txt").write_text("bmx-trees\ncamel\n")
    davis.write_results(tmp_path / "good", drifting)
    method = evaluate_results(davis.root, {"a": tmp_path / "good"}, protocol="davis-2016").methods[0]
    scores = {score.attribute: score for score in analysis.by_attribute(method)}
    hard, easy = analysis.by_sequence(method)
    assert (scores["OCC"].sequences, scores["OCC"].j) == (1, hard.j)
    assert scores["OCC"].j_gain == pytest.approx(easy.j - hard.j, abs=1e-12)
    assert scores["ROT"].j == easy.j
    assert scores["DEF"].sequences == 2  # both have it
    assert np.isnan(scores["DEF"].j_gain)
    assert "AC" not in scores
    assert method.t == pytest.approx(method.objects[1].stability.mean(), abs=1e-12)  # bmx-trees has none
    assert evaluate(davis, tmp_path, "--year", "2016", "--report", "--results", str(tmp_path / "good")) == 0
    assert "scale variation" in (tmp_path / "out/report.html").read_text()
    assert (tmp_path / "out/figures/attributes.png").exists()


def test_analysis_by_hand(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: mask if t < 6 else np.zeros_like(mask))
    evaluation = evaluate_results(davis.root, {"a": folder}, protocol="davis-2017")
    method = evaluation.methods[0]
    course = analysis.over_time(method)
    assert (course.mean[0], course.mean[-1]) == (1.0, 0.0)
    alpha, beta = analysis.by_sequence(method)
    assert (alpha.objects, alpha.frames, beta.objects, beta.frames) == (2, 10, 1, 7)
    assert (alpha.j, alpha.missed, alpha.false_close, alpha.false_far) == (0.5, 0.5, 0.0, 0.0)
    assert beta.missed == pytest.approx(2 / 7, abs=1e-12)
    worst = [(scores.name, scores.frames[index]) for scores, index in analysis.worst_frames(method)]
    assert worst == [("alpha_1", "00006"), ("beta_1", "00006")]
    assert analysis.sequence_order(evaluation) == ["alpha", "beta"]


def test_other_protocols_have_reports_too(davis, tmp_path):
    davis.write_results(tmp_path / "mine", good)
    for name, masks in davis.masks.items():
        for t in (0, len(masks) - 1):
            write_labels(tmp_path / "mine" / name / f"{t:05d}.png", masks[t])
    shutil.copytree(davis.root / "Annotations", davis.root / "Annotations_unsupervised")
    more = ["--report", "--results", str(tmp_path / "mine")]
    assert evaluate(davis, tmp_path, "--protocol", "davis-unsupervised", *more) == 0
    assert "Published" not in (tmp_path / "out/report.html").read_text()
    assert evaluate(davis, tmp_path, "--protocol", "davis-unsupervised", "--year", "2016", *more[1:]) == 0
    arguments = ["evaluate", str(davis.root / "Annotations/480p"), "--out", str(tmp_path / "plain"), "--workers", "1"]
    assert main([*arguments, "--protocol", "folders", *more]) == 0
    assert "plain folders" in (tmp_path / "plain/report.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "expected --results DIR or --preset NAME"),
        (["--results", "{good}", "--results", "{good}"], "two methods are called 'good'"),
        (["--results", "a/b={good}"], "NAME free of slashes"),
        (["--results", "{good}", "--network-size", "large"], "--network-size: expected HxW"),
    ],
)
def test_bad_arguments_give_one_line(results, tmp_path, capsys, more, message):
    assert evaluate(results, tmp_path, *[word.format(good=tmp_path / "good") for word in more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_benchmark_says_what_each_part_takes(davis, capsys):
    assert main(["benchmark", "evaluate", str(davis.root), "--repeat", "1"]) == 0
    header, *rows, note = capsys.readouterr().out.splitlines()
    assert header.split() == ["sequence", "frames", "reading", "J", "and", "F", "T"]
    assert [row.split()[:2] for row in rows] == [["alpha", "10"], ["beta", "7"], ["all", "17"]]
    assert all(float(value) >= 0 for row in rows for value in row.split()[2:])
    assert note == "ms of processor time per frame, least of 1 runs"
    assert main(["benchmark", "evaluate", str(davis.root), "--repeat", "0"]) == 2


def browse(page, folder, *more):
    """Opens a page in headless Chromium; returns what it wrote to stdout and the messages on its console."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder}", "--enable-logging=stderr", "--hide-scrollbars", *more, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_the_report_opens_in_a_browser(evaluated, tmp_path):
    page, screenshot = evaluated[1] / "out/report.html", tmp_path / "report.png"
    dom, console = browse(
        page, tmp_path / "profile", "--window-size=1180,2600", f"--screenshot={screenshot}", "--dump-dom"
    )
    assert console == []
    image = cv2.imread(str(screenshot))
    assert image.shape[:2] == (2600, 1180)
    for color in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):  # both methods' bars are drawn
        assert np.count_nonzero((image[..., ::-1] == color).all(axis=2)) > 2000
    # Headings became buttons: the page's script ran.
    assert dom.count("<button>") == 3 + 2 * 5

    # A page with an error is noticed.
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("forEach(function (table)", "forEvery(function (table)"))
    _, console = browse(broken, tmp_path / "profile2", "--dump-dom")
    assert any("forEvery is not a function" in line for line in console)
