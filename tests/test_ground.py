"""The ground: pieces of road that join, markings that go on, land that lies under all of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree

from datasets.synthetic import ground
from datasets.synthetic.atlas import Chart
from datasets.synthetic.plan import PIECE_M, street_coordinates
from datasets.synthetic.scene import Facets
from datasets.synthetic.street import Street, make_street

SCALE = ground.TEXELS_PER_M
ROWS, COLUMNS = round(2 * ground.HALF_WIDTH_M * SCALE), round(PIECE_M * SCALE)
PAINTED = Chart(0, 0, COLUMNS, ROWS)
MEADOW = Chart(0, 0, 256, 256, tiles=True)
PROFILE_M = (-10, -5.7, -5.68, -3.5, 0, 3.5, 5.68, 5.7, 10)


@pytest.fixture(scope="module", params=range(4))
def street(request: pytest.FixtureRequest) -> Street:
    return make_street(request.param, 300)


def pieces(street: Street) -> range:
    """Return the pieces that lie on the street as a whole."""
    return range(int(np.ceil(street.start_m / PIECE_M)), int(street.end_m // PIECE_M))


def road(street: Street, piece: int) -> Facets:
    return ground.road(street, piece * PIECE_M, PIECE_M, PAINTED)


def coordinates(street: Street, xy_w: np.ndarray, piece: int) -> np.ndarray:
    s = np.arange(piece * PIECE_M - 12, (piece + 1) * PIECE_M + 12, 1.0)
    s = s[(s > street.start_m) & (s < street.end_m)]
    return street_coordinates(street, xy_w, s)


def normals_up(made: Facets) -> np.ndarray:
    corners = made.corners_w
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]


def as_points(corners: np.ndarray) -> set[tuple[float, ...]]:
    return set(map(tuple, corners.reshape(-1, corners.shape[-1]).tolist()))


def painted(seed: int = 0, start_m: float = 0.0, shadows: tuple = ()) -> np.ndarray:
    return ground.paint(np.random.default_rng(seed), start_m, PIECE_M, shadows)


def lines_at(left_m: float, start_m: float = 0.0) -> np.ndarray:
    """Return how bright (columns,) a piece without shadows is at a place across the street."""
    row = round((ground.HALF_WIDTH_M - left_m) * SCALE)
    return painted(3, start_m)[row - 1 : row + 1].mean((0, 2))


def test_the_road_lies_on_the_relief_at_its_vertices(street):
    for piece in pieces(street)[::3]:
        corners = road(street, piece).corners_w.reshape(-1, 3)
        left_m = np.array(PROFILE_M, float)
        s = piece * PIECE_M + np.arange(0, PIECE_M + 1, 2.0)
        xy = street.place_w(s[:, None], left_m)
        z = street.height(xy) + ground.height_above_relief(left_m)
        expected = as_points(np.round(np.concatenate([xy, z[..., None]], -1), 8) + 0.0)
        assert as_points(np.round(corners, 8) + 0.0) == expected


def test_a_piece_of_road_ends_exactly_where_the_next_begins(street):
    for piece in pieces(street)[:-1]:
        shared = as_points(road(street, piece).corners_w) & as_points(
            road(street, piece + 1).corners_w
        )
        assert len(shared) == len(PROFILE_M)


def test_the_front_of_the_road_is_up(street):
    for piece in pieces(street):
        assert (normals_up(road(street, piece)) > 0).all()  # and no facet is turned over in a curve


def test_the_pieces_of_road_cover_their_part_of_the_plane_once(street):
    for piece in pieces(street)[::4]:
        area = normals_up(road(street, piece)).sum() / 2
        s = piece * PIECE_M + (np.arange(240) + 0.5) / 10
        # What a strip of even width covers does not depend on how it is bent.
        assert area == pytest.approx(2 * ground.HALF_WIDTH_M * PIECE_M, rel=0.01), s[0]


def test_the_texture_of_the_road_follows_the_street_without_a_jump(street):
    for piece in pieces(street)[2::5]:
        made = road(street, piece)
        for corner in range(3):
            points = made.corners_w[:, corner]
            texels = np.einsum(
                "fij,fj->fi", made.texels, np.column_stack([points, 0 * points[:, 0] + 1])
            )
            s, left_m = coordinates(street, points[:, :2], piece).T
            expected = np.stack([s - piece * PIECE_M, ground.HALF_WIDTH_M - left_m], 1) * SCALE
            assert_allclose(texels, expected, atol=0.6)
            assert texels.min() > -1e-6 and (texels < np.array([COLUMNS, ROWS]) + 1e-6).all()


def test_kerbs_stand_out_and_the_road_is_cambered():
    above = ground.height_above_relief
    assert above(0.0) > above(2.0) > above(ground.LANE_M) >= 0
    kerb = above(ground.KERB_LEFT_M) - above(ground.KERB_LEFT_M - 0.05)
    assert kerb == pytest.approx(ground.KERB_M)
    left_m = np.linspace(-12, 12, 97)
    assert_allclose(above(left_m), above(-left_m))
    assert (above(left_m[np.abs(left_m) > ground.KERB_LEFT_M]) == ground.KERB_M).all()


def test_a_painting_has_the_size_of_its_piece_and_values_from_0_to_1():
    for seed in range(4):
        image = painted(seed)
        assert image.shape == (ROWS, COLUMNS, 3)
        assert image.min() >= 0 and image.max() <= 1
    assert np.array_equal(painted(1), painted(1))
    assert np.abs(painted(1) - painted(2)).mean() > 0.005


def test_every_part_of_the_ground_has_contrast():
    image = painted(5).mean(-1)
    for low_m, high_m in ((0.5, 3.2), (3.8, 5.2), (6, 8.8), (9, 10)):
        for side in (1, -1):
            left = sorted((side * low_m, side * high_m))
            rows = slice(
                int((ground.HALF_WIDTH_M - left[1]) * SCALE),
                int((ground.HALF_WIDTH_M - left[0]) * SCALE),
            )
            assert 0.01 < image[rows].std() < 0.2


def test_the_parts_of_the_street_differ():
    image = painted(6)

    def colour(low_m: float, high_m: float) -> np.ndarray:
        rows = [round((ground.HALF_WIDTH_M - left_m) * SCALE) for left_m in (high_m, low_m)]
        return image[slice(*rows)].mean((0, 1))

    road, pavement, beyond = colour(0.5, 3), colour(6.2, 8.7), colour(9.0, 10)
    assert pavement.mean() > road.mean() + 0.1
    assert beyond[1] > beyond[2] + 0.05 and abs(road[1] - road[2]) < 0.05  # grass is green


@pytest.mark.parametrize("start_m", [-48.0, 0.0, 24.0, 240.0])
def test_dashes_are_where_s_says(start_m):
    along_m = start_m + (np.arange(COLUMNS) + 0.5) / SCALE
    middle = lines_at(0.0, start_m)
    dash = along_m % 6 < 3
    assert np.median(middle[dash]) > np.median(middle[~dash]) + 0.25
    steps = np.flatnonzero(np.diff(dash.astype(int)))
    for step in steps:  # sharp, to the texel
        before, after = middle[step - 6 : step + 1].mean(), middle[step + 1 : step + 8].mean()
        assert abs(after - before) > 0.15 and (after > before) == dash[step + 1]


def test_dashes_go_on_across_pieces():
    two = np.concatenate([lines_at(0.0, start_m) for start_m in (0.0, PIECE_M)])
    bright = (two > 0.55).reshape(-1, 3 * SCALE).mean(1)
    assert (bright[::2] > 0.8).all() and (bright[1::2] < 0.2).all()


def test_parking_lanes_have_borders_on_both_sides():
    along_m = (np.arange(COLUMNS) + 0.5) / SCALE
    for side in (1, -1):
        border = lines_at(side * ground.LANE_M)
        assert np.median(border[along_m % 1 < 0.5]) > np.median(border[along_m % 1 > 0.5]) + 0.2
        bays = lines_at(side * (ground.LANE_M + 1))
        lines = along_m % 6 < 0.1
        assert bays[lines].mean() > np.median(bays[~lines]) + 0.2
    assert not lines_at(ground.LANE_M / 2)[along_m % 6 < 0.1].mean() > 0.6  # none on the lanes


def test_shadows_darken_what_lies_in_them_and_nothing_else():
    low, high = np.array([5.0, -6.0]), np.array([11.0, 2.0])  # of s and left [m]
    polygon = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    shape = ROWS, COLUMNS
    start_m = 48.0
    bright = ground.brightness(shape, start_m, [polygon + (start_m, 0)])
    s = (np.arange(COLUMNS) + 0.5) / SCALE
    left_m = ground.HALF_WIDTH_M - (np.arange(ROWS) + 0.5) / SCALE
    points = np.stack(np.meshgrid(s, left_m), -1)
    depth_m = np.minimum(points - low, high - points).min(-1)  # below zero outside
    assert bright[depth_m > 0.25].max() < 0.6 and bright.min() > 0.2
    assert (bright[depth_m < -0.25] == 1).all()
    edge = np.abs(depth_m) < 0.25
    assert len(np.unique(np.round(bright[edge], 2))) > 5  # soft
    half = (1 + bright.min()) / 2
    assert np.abs(depth_m[edge & (np.abs(bright - half) < 0.02)]).max() < 0.05


def test_shadows_are_on_the_painting():
    shadow = np.array([(2.0, -9.0), (20.0, -9.0), (20.0, 9.0), (2.0, 9.0)])
    lit, dark = painted(2), painted(2, shadows=(shadow,))
    inside = np.s_[2 * SCALE : -2 * SCALE, 3 * SCALE : 19 * SCALE]
    assert_allclose(dark[inside].mean() / lit[inside].mean(), 0.48, atol=0.15)
    assert_allclose(dark[:, 21 * SCALE :], lit[:, 21 * SCALE :], atol=1e-6)


def test_overlapping_shadows_are_no_darker_than_one():
    polygon = np.array([(5.0, -4.0), (9.0, -4.0), (9.0, 4.0), (5.0, 4.0)])
    one, two = (ground.brightness((ROWS, COLUMNS), 0.0, [polygon] * count) for count in (1, 2))
    assert_allclose(one.min(), two.min(), atol=1e-6)
    none = ground.brightness((ROWS, COLUMNS), 0.0, [])
    assert (none == 1).all()


def land(street: Street, piece: int) -> Facets | None:
    return ground.land(street, piece * PIECE_M, PIECE_M, MEADOW)


def cells_of(made: Facets | None) -> list[tuple[int, int]]:
    """Return the cell of the grid that each triangle lies in."""
    if made is None:
        return []
    middle = made.corners_w[:, :3, :2].mean(1)
    return list(map(tuple, np.floor(middle / ground._LAND_CELL_M).astype(int).tolist()))


def test_the_land_has_no_hole_near_the_street():
    for seed in range(12):
        street = make_street(seed, 300)
        covered = {cell for piece in pieces(street) for cell in cells_of(land(street, piece))}
        s = np.arange(street.start_m, street.end_m, 1.0)
        line = street.position_w(s)
        low, high = (f(line, 0) // ground._LAND_CELL_M for f in (np.min, np.max))
        cells = np.mgrid[low[0] - 5 : high[0] + 6, low[1] - 5 : high[1] + 6].reshape(2, -1).T
        gap_m, nearest = cKDTree(line).query((cells + 0.5) * ground._LAND_CELL_M)
        # What lies beside the first or last few metres is a matter of pieces that are not whole.
        beside = (s[nearest] > s[0] + PIECE_M) & (s[nearest] < s[-1] - PIECE_M - 4)
        wanted = cells[beside & (gap_m < ground._LAND_REACH_M - 5)].astype(int)
        assert len(wanted) > 200
        missing = set(map(tuple, wanted.tolist())) - covered
        assert not missing, seed


def test_neighbouring_pieces_of_land_do_not_overlap():
    for seed in range(12):
        street = make_street(seed, 300)
        for first in pieces(street)[:-8:4]:
            cells = [c for piece in range(first, first + 9) for c in cells_of(land(street, piece))]
            assert len(cells) == 2 * len(set(cells)), (seed, first)  # of two triangles


def test_land_lies_on_the_relief_below_the_road(street):
    rng = np.random.default_rng(1)
    for piece in pieces(street)[::2]:
        made = land(street, piece)
        assert (normals_up(made) > 0).all()
        corners = made.corners_w[:, :3]
        assert_allclose(corners[..., 2], street.height(corners[..., :2]) - ground._LAND_DEPTH_M)
        weights = rng.dirichlet((1, 1, 1), (len(corners), 30))
        points = np.einsum("fnk,fki->fni", weights, corners).reshape(-1, 3)
        s, left_m = coordinates(street, points[:, :2], piece).T
        on_road = (np.abs(left_m) < ground.HALF_WIDTH_M) & (s > street.start_m)
        below_m = street.height(points[:, :2]) + ground.height_above_relief(left_m) - points[:, 2]
        assert on_road.any()
        assert below_m[on_road].min() > 0.3 and below_m[on_road].max() < 2


def test_the_texture_of_the_land_is_anchored_in_the_world():
    """Wherever a cell belongs to, it shows the same grass."""
    street = make_street(2, 300)
    for piece in (0, 5):
        made = land(street, piece)
        points = np.concatenate([made.corners_w[:, :3], np.ones((len(made), 3, 1))], -1)
        texels = np.einsum("fij,fkj->fki", made.texels, points)
        assert_allclose(texels, SCALE / 2 * points[..., :2] * (1, -1), atol=1e-6)


def test_there_is_no_land_beyond_the_end_of_the_street():
    street = make_street(2, 100)
    assert land(street, int(street.end_m // PIECE_M) + 1) is None
    assert land(street, int(street.start_m // PIECE_M) - 2) is None
