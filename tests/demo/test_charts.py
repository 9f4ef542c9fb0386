import struct
import subprocess
import sys
import zlib

import pytest

from ref.demo import charts

TRAIN = [(step, 8 / (1 + step / 50)) for step in range(1, 400)]
HELDOUT = [(100, 3.5), (200, 2.5), (399, 2.1)]
BASELINES = {"xz -9e": 2.2, "n-gram": 1.8}


def draw(path, train=TRAIN, heldout=HELDOUT, baselines=BASELINES):
    return charts.loss_curve(path, train, heldout, baselines).read_bytes()


def pixels(data):
    """Width, height and the raw rows of a PNG, its chunks' checksums verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, body = 8, b""
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, chunk = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length)[0] == zlib.crc32(kind + chunk)
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", chunk)
        body += chunk if kind == b"IDAT" else b""
        place += 12 + length
    return width, height, zlib.decompress(body)


def test_the_picture_is_a_png_and_the_same_twice(tmp_path):
    width, height, rows = pixels(draw(tmp_path / "a.png"))
    assert width >= 600 and height >= 400 and len(set(rows)) > 20
    assert draw(tmp_path / "b.png") == (tmp_path / "a.png").read_bytes()


def test_curves_baselines_and_units_are_drawn_as_given(tmp_path, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures, print_png = [], FigureCanvasAgg.print_png
    monkeypatch.setattr(
        FigureCanvasAgg,
        "print_png",
        lambda self, *args, **kw: [figures.append(self.figure), print_png(self, *args, **kw)],
    )
    draw(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training step", "loss (bits per byte)")
    drawn = {line.get_label(): line for line in axes.get_lines()}
    assert drawn["training text"].get_xydata().tolist() == [list(p) for p in TRAIN]
    assert drawn["held-out text"].get_xydata().tolist() == [list(p) for p in HELDOUT]
    assert set(drawn["xz -9e: 2.200"].get_ydata()) == {2.2}
    assert set(drawn["n-gram: 1.800"].get_ydata()) == {1.8}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(drawn)
    low, high = axes.get_ylim()
    assert low == 0 and max(loss for _, loss in HELDOUT) < high


def test_a_run_that_has_just_begun_can_be_drawn(tmp_path):
    for train, heldout, baselines in [([], [], {}), (TRAIN[:1], [], BASELINES)]:
        pixels(draw(tmp_path / "a.png", train, heldout, baselines))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": [1.0, 2.0]}, r"train has shape \(2,\)"),
        ({"train": [(1, 2, 3)]}, r"train has shape \(1, 3\)"),
        ({"heldout": [(1, float("nan"))]}, r"heldout has shape \(1, 2\); finite pairs"),
        ({"baselines": {"xz": float("inf")}}, r"baselines \['xz'\] are not finite"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "a.png", **change)
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, ref.demo.charts; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
