"""The picture of trajectories from above: what is where, in one scale, and what the legend says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from evaluation import top_view
from evaluation.top_view import COLOURS, draw_top_view


def line(count=50, x_m=0.0, z_m=60.0):
    t = np.linspace(0, 1, count)
    return np.stack([x_m * t, 0.3 * t, z_m * t], 1)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def where(image, name, below=130):
    """Return rows and columns of the pixels of a colour, in the plot alone."""
    near = np.abs(image - COLOURS[name]).max(2) < 40
    rows, columns = np.nonzero(near)
    kept = rows > below
    return rows[kept], columns[kept]


def test_ahead_is_up_and_right_is_right():
    image = pixels(draw_top_view({"camera": line(x_m=60.0)}, "drive"))
    rows, columns = where(image, "camera")
    assert np.corrcoef(rows, columns)[0, 1] < -0.99


@pytest.mark.parametrize(("x_m", "z_m"), [(60.0, 60.0), (30.0, 80.0), (200.0, 20.0), (-5.0, 3.0)])
def test_both_axes_have_one_scale(x_m, z_m):
    image = pixels(draw_top_view({"imu": line(x_m=x_m, z_m=z_m)}, "drive"))
    rows, columns = where(image, "imu")
    width, height = (np.ptp(x) - 6 for x in (columns, rows))
    assert width / height == pytest.approx(abs(x_m / z_m), rel=0.06)


def test_a_drive_takes_up_most_of_the_picture():
    for x_m, z_m in ((300.0, 400.0), (3.0, 4.0), (3e4, 2e4)):
        image = pixels(draw_top_view({"filter": line(x_m=x_m, z_m=z_m)}, "drive"))
        rows, _ = where(image, "filter")
        if z_m > 10:
            assert np.ptp(rows) > 0.6 * image.shape[0]


def test_the_first_decides_what_is_seen_and_those_that_leave_say_so():
    truth, far = line(), line(x_m=1e5, z_m=1e5)
    view = top_view._view({"truth": truth[:, [0, 2]], "imu": far[:, [0, 2]]})
    assert max(view.size) / view.px_per_m < 300
    entries = dict(
        top_view._entries(
            {"truth": truth[:, [0, 2]], "imu": far[:, [0, 2]]}, view, {"imu": "ATE 3 m"}
        )
    )
    assert entries == {"truth": "", "imu": "ATE 3 m, leaves the picture"}
    near = top_view._view({"truth": truth[:, [0, 2]], "imu": line(x_m=20)[:, [0, 2]]})
    assert "" == dict(top_view._entries({"imu": line(x_m=20)[:, [0, 2]]}, near, {}))["imu"]


def test_a_trajectory_that_is_not_finite_is_drawn_as_far_as_it_is():
    broken = line(x_m=40.0)
    broken[30:] = np.nan
    image = pixels(draw_top_view({"truth": line(x_m=40.0), "imu": broken}, "drive"))
    rows_whole, _ = where(image, "truth")
    rows, _ = where(image, "imu")
    assert 0 < np.ptp(rows) < 0.75 * np.ptp(rows_whole)
    nothing = np.full((5, 3), np.nan)
    assert pixels(draw_top_view({"truth": nothing, "camera": 1e300 * nothing}, "drive")).size


def test_what_stands_still_is_a_point():
    image = pixels(draw_top_view({"camera": np.zeros((10, 3))}, "drive"))
    assert image.shape[2] == 3
    assert draw_top_view({"camera": np.zeros((1, 3))}, "one image")


def test_dense_points_and_few_points_look_alike():
    few, many = (pixels(draw_top_view({"truth": line(n, x_m=50.0)}, "drive")) for n in (2, 20_000))
    assert np.abs(few - many).mean() < 0.2


@pytest.mark.parametrize(
    ("least", "step"), [(0.9, 1), (1.0, 1), (1.1, 2), (3, 5), (7, 10), (120, 200), (0.03, 0.05)]
)
def test_the_grid_has_round_numbers(least, step):
    assert top_view._round_step(least) == pytest.approx(step)


def test_grid_lines_are_where_their_numbers_say():
    view = top_view._view({"truth": line(x_m=35)[:, [0, 2]]})
    of_x, of_z = top_view._ticks(view)
    assert 4 <= len(of_z) <= 12 and len(of_x) >= 2
    for x, px in of_x:
        assert view.place(np.array([[x, 0.0]]))[0, 0] == pytest.approx(px)
    for z, px in of_z:
        assert view.place(np.array([[0.0, z]]))[0, 1] == pytest.approx(px)
        assert 0 <= px <= view.size[1] + 1e-6


def test_a_legend_that_is_too_long_goes_on_below():
    names = {f"estimate {i}": line() for i in range(9)}
    short = pixels(draw_top_view({"camera": line()}, "drive"))
    long = pixels(draw_top_view(names, "drive", dict.fromkeys(names, "ATE 123.45 m")))
    assert long.shape[0] >= short.shape[0] + 26 and long.shape[1] == short.shape[1]


def test_nothing_is_no_picture_and_inputs_are_unchanged():
    with pytest.raises(ValueError, match="at least one"):
        draw_top_view({}, "drive")
    xyz = line()
    before = xyz.copy()
    assert draw_top_view({"truth": xyz}, "drive") == draw_top_view({"truth": xyz}, "drive")
    assert np.array_equal(xyz, before)
