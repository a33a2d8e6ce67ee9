"""Cars: closed bodies on four wheels, and paint that fits them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from datasets.synthetic import cars, world
from datasets.synthetic.atlas import Atlas
from datasets.synthetic.scene import Facets
from tests.test_objects import (
    assert_planar_and_convex,
    inside_seen,
    normals,
    texels_in_charts,
)


@pytest.fixture(scope="module")
def made() -> list[Facets]:
    return cars.make_cars(Atlas(1, *world._PAGE_SIZE).page(0))


def test_there_is_a_car_of_each_colour_and_of_each_shape(made):
    assert len(made) == len(cars.COLOURS)
    charts = [tuple(np.unique(car.chart[:, :2], axis=0).ravel()) for car in made]
    assert len(set(charts)) == len(made)  # paint of its own
    outlines = {tuple(np.round(np.ptp(car.corners_w.reshape(-1, 3), axis=0), 3)) for car in made}
    assert len(outlines) == len(cars.SHAPES)


def test_facets_are_planar_and_convex(made):
    for car in made:
        assert_planar_and_convex(car)


def test_a_car_stands_on_the_ground_and_has_the_size_of_one(made):
    for car in made:
        low, high = (f(car.corners_w.reshape(-1, 3), 0) for f in (np.min, np.max))
        assert 0 <= low[2] < 0.03
        assert_allclose(low[:2], -high[:2], atol=0.06)  # the origin is below its middle
        assert 4.0 < high[0] - low[0] < 4.6
        assert cars.WIDTH_M <= high[1] - low[1] < cars.WIDTH_M + 0.05
        assert 1.3 < high[2] < 2.0
        wheels = car.corners_w[car.corners_w[..., 2].min(1) < 0.05]
        assert wheels[..., 0].min() < -1.2 and wheels[..., 0].max() > 1.2


def test_a_car_is_alike_on_both_sides(made):
    def as_set(corners: np.ndarray) -> set[tuple]:
        return {tuple(map(tuple, sorted(np.round(face, 6).tolist()))) for face in corners + 0.0}

    for car in made:
        assert as_set(car.corners_w) == as_set(car.corners_w * (1, -1, 1))


@pytest.mark.parametrize("eye_m", [0.5, 1.65, 4.0])
def test_a_car_is_closed_seen_from_around(made, eye_m):
    for car in made[: len(cars.SHAPES)]:
        seen = [inside_seen(car, azimuth, eye_m=eye_m) for azimuth in np.arange(0.1, 6.2, 0.5)]
        assert max(seen) < 0.03 and np.mean(seen) < 0.005


def test_sides_look_to_their_side_and_no_surface_looks_inside(made):
    for car in made:
        middle, normal = car.corners_w.mean(1), normals(car)
        aside = np.abs(middle[:, 1]) > 0.7
        assert (np.sign(normal[aside, 1]) == np.sign(middle[aside, 1])).all()
        top = (middle[:, 2] > 0.9) & ~aside
        assert (normal[top, 2] > 0).all()
        ends = (np.abs(middle[:, 0]) > 1.9) & (np.abs(normal[:, 0]) > 0.5)
        assert (np.sign(normal[ends, 0]) == np.sign(middle[ends, 0])).all() and ends.any()


def test_paint_lies_inside_its_charts(made):
    for car in made:
        assert texels_in_charts(car) < 1e-6


def test_both_sides_show_the_same_picture_the_right_way_up(made):
    for car in made:
        middle, normal = car.corners_w.mean(1), normals(car)
        upright = np.abs(normal[:, 1]) > 0.99
        panels = upright & (middle[:, 2] > 0.3) & (np.abs(middle[:, 1]) > 0.7)
        panels &= np.ptp(car.corners_w[..., 0], axis=1) > 0.05
        for side in (-1, 1):
            chosen = panels & (np.sign(middle[:, 1]) == side)
            assert chosen.any()
            # Columns go forward and rows go down, both in metres times the scale.
            rates = np.unique(np.round(car.texels[chosen][:, :, :3], 6) + 0.0, axis=0)
            column, row = cars.TEXELS_PER_M * np.eye(3)[[0, 2]] * ((1,), (-1,))
            assert any(np.allclose(rate, [column, row]) for rate in rates)


def test_wheels_show_their_hub_in_the_middle(made):
    for car in made:
        normal = np.abs(normals(car)[:, 1])
        rims = (normal > 0.99) & (np.abs(car.corners_w[..., 1]).min(1) > cars.WIDTH_M / 2)
        assert rims.sum() == 12  # three facets each
        for corners, texels in zip(car.corners_w[rims], car.texels[rims], strict=True):
            hub = np.array([np.sign(corners[0, 0]) * 1.31, corners[0, 1], 0.31, 1])
            assert_allclose(texels @ hub, (32, 32), atol=1.5)


def test_nothing_of_a_parked_car_is_flagged_moving(made):
    assert not any(car.moving.any() for car in made)


def test_glass_is_darker_than_paint(made):
    """The brightest car: its windscreen and its windows differ from its body."""
    atlas = Atlas(1, *world._PAGE_SIZE)
    white = cars.make_cars(atlas.page(0))[int(np.argmax(np.sum(cars.COLOURS, 1)))]
    middle, normal = white.corners_w.mean(1), normals(white)
    points = np.concatenate([middle, np.ones((len(middle), 1))], 1)
    texels = np.einsum("fij,fj->fi", white.texels, points) + white.chart[:, :2]
    colour = atlas.texels[texels[:, 1].astype(int), texels[:, 0].astype(int)].mean(1)
    cabin = (middle[:, 2] > 1.05) & (np.abs(normal[:, 2]) < 0.9)
    bonnet = (middle[:, 0] > 1.2) & (normal[:, 2] > 0.9)
    assert cabin.sum() >= 4 and bonnet.any()
    assert np.median(colour[cabin]) < 0.5 * colour[bonnet].min()
