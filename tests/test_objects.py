"""Houses, trees and furniture: flat convex facets that look outward and stand on the ground."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

from datasets.synthetic import facades, objects
from datasets.synthetic.atlas import Atlas, Chart
from datasets.synthetic.raster import NOTHING, camera_rays, cast
from datasets.synthetic.scene import NO_NICHES, Balls, Facets

SIDE = 160  # of what cameras see [px]


class Built(NamedTuple):
    """A house and what it was asked to be."""

    facets: Facets
    facade: facades.Facade
    depth_m: float


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normals(made: Facets) -> np.ndarray:
    """Return unit normals (F, 3) towards those who see the fronts."""
    corners = made.corners_w
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def assert_planar_and_convex(made: Facets) -> None:
    """Check the fourth corner, and that all turns are to the left."""
    corners, normal = made.corners_w, normals(made)
    assert np.isfinite(corners).all() and np.isfinite(made.texels).all()
    off_plane = ((corners[:, 3] - corners[:, 0]) * normal).sum(1)
    assert_allclose(off_plane, 0, atol=1e-6)
    sides = np.roll(corners, -1, 1) - corners
    turns = np.cross(sides, np.roll(sides, -1, 1)) @ normal[..., None]
    assert turns.min() > -1e-9


def look_at(target: np.ndarray, distance_m: float, azimuth: float, elevation: float) -> np.ndarray:
    """Return the pose (4, 4) of a camera that looks at a target from around it."""
    level = np.cos(elevation)
    away = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
    right = np.cross(-away, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    T_w_c = np.eye(4)
    T_w_c[:3, :3] = np.stack([right, np.cross(-away, right), -away], 1)
    T_w_c[:3, 3] = target + distance_m * away
    return T_w_c


def inside_seen(made: Facets, azimuth: float, *, eye_m: float) -> float:
    """Return the part of a silhouette in which one sees a surface from behind: a hole."""
    corners = made.corners_w.reshape(-1, 3)
    middle, reach_m = (corners.min(0) + corners.max(0)) / 2, np.ptp(corners, axis=0).max()
    distance_m = 2 * reach_m + np.abs(eye_m - middle[2])
    elevation = np.arcsin((eye_m - middle[2]) / distance_m)
    T_w_c = look_at(middle, distance_m, azimuth, elevation)
    corners = (made.corners_w - T_w_c[:3, 3]) @ T_w_c[:3, :3]
    both = np.concatenate([corners, corners[:, ::-1]])
    focal = 0.45 * SIDE / np.abs(both[..., :2] / both[..., 2:]).max()
    K = np.array([[focal, 0, SIDE / 2], [0, focal, SIDE / 2], [0, 0, 1]])
    hits = cast(camera_rays(K, (SIDE, SIDE), 1), both, np.zeros((0, 3)), np.zeros(0))
    return (hits.surface >= len(made)).sum() / (hits.surface != NOTHING).sum()


def texels_in_charts(made: Facets) -> float:
    """Return by how much [texels] the corners of facets lie outside of charts that do not tile."""
    points = np.concatenate([made.corners_w, np.ones_like(made.corners_w[..., :1])], -1)
    texels = np.einsum("fij,fkj->fki", made.texels, points)
    outside = np.maximum(-texels, texels - made.chart[:, None, 2:4])
    return float(outside[made.chart[:, 4] == 0].max(initial=-1))


@pytest.fixture(scope="module")
def materials() -> objects.Materials:
    return objects.make_materials(rng(), Atlas(1, 2816, 2688).page(0))


@pytest.fixture(scope="module")
def houses(materials) -> list[Built]:
    made = []
    for seed in range(12):
        sizes = rng(seed)
        facade = facades.paint(sizes, sizes.uniform(5.5, 14), 2 + seed % 3)
        front = Chart(0, 0, facade.image.shape[1], facade.image.shape[0])
        depth_m = sizes.uniform(5, 10.5)
        house = objects.house(rng(seed), facade, front, materials, depth_m)
        made.append(Built(house, facade, depth_m))
    return made


def furniture(materials: objects.Materials, seed: int) -> dict[str, Facets]:
    """Return one of each of the small things."""
    sizes = rng(seed).uniform(0.1, 3, 3)
    return {
        "wall": objects.wall(materials.plaster, *sizes),
        "prism": objects.prism(materials.bark, sizes[0], 0.0, sizes[1], sides=3 + seed),
        "lamp": objects.lamp(materials),
        "sign": objects.sign(rng(seed), materials),
        "bin": objects.dustbin(rng(seed), materials, (0.6, 0.6, 1.1)),
        "tree": objects.tree(rng(seed), materials, 6.0, 1.6)[0],
    }


def test_facets_are_planar_and_convex(materials, houses):
    for made in [built.facets for built in houses]:
        assert_planar_and_convex(made)
    for seed in range(6):
        for made in furniture(materials, seed).values():
            assert_planar_and_convex(made)


def test_what_is_painted_for_one_thing_stays_in_its_chart(materials, houses):
    for seed in range(6):
        assert texels_in_charts(furniture(materials, seed)["sign"]) < 1e-6
    for built in houses:
        above_ground = built.facets.corners_w[..., 2].min(1) >= 0
        kept = [column[above_ground] for column in vars(built.facets).values()]
        assert texels_in_charts(Facets(*kept)) < 1e-6


def test_nothing_that_stands_is_flagged_moving(materials, houses):
    assert not any(built.facets.moving.any() for built in houses)
    assert not any(made.moving.any() for made in furniture(materials, 0).values())


def test_a_front_stands_on_y_0_and_is_all_there(houses):
    for built in houses:
        niched = (built.facets.niches != NO_NICHES).any(1)
        assert niched.sum() == 2  # ground floor and upper floors
        corners = built.facets.corners_w[niched]
        assert_allclose(corners[..., 1], 0, atol=1e-12)
        assert_allclose(normals(built.facets)[niched], [[0, -1, 0]] * 2, atol=1e-12)
        half = built.facade.width_m / 2
        assert_allclose([corners[..., 0].min(), corners[..., 0].max()], [-half, half])
        assert_allclose(corners[..., 2].max(), built.facade.height_m)
        assert corners[..., 2].min() < -1  # the ground may fall along a house
        middle = sorted(corners[..., 2].ravel())[2:6]
        assert_allclose(middle, facades.GROUND_FLOOR_M)


def test_the_picture_of_a_front_lies_on_it_upright(houses):
    for built in houses:
        niched = (built.facets.niches != NO_NICHES).any(1)
        half, top = built.facade.width_m / 2, built.facade.height_m
        corners = np.array([(-half, 0, top, 1), (half, 0, top, 1), (-half, 0, top - 1, 1)])
        scale = facades.TEXELS_PER_M
        expected = [(0, 0), (scale * built.facade.width_m, 0), (0, scale)]
        for texels in built.facets.texels[niched]:
            assert_allclose(corners @ texels.T, expected, atol=1e-6)
        assert built.facade.lower.row() in map(tuple, built.facets.niches[niched].tolist())
        assert built.facade.upper.row() in map(tuple, built.facets.niches[niched].tolist())


def test_a_house_has_the_depth_asked_for_and_keeps_off_the_street(houses):
    for built in houses:
        corners = built.facets.corners_w
        assert built.depth_m <= corners[..., 1].max() < built.depth_m + 0.6
        half = built.facade.width_m / 2
        assert np.abs(corners[..., 0]).max() < half + 0.3
        low = corners[corners[..., 2].max(1) < 2.5]  # what one could run into
        assert low[..., 1].min() >= -0.2
        assert corners[..., 1].min() >= -1.05  # balconies
        ridge_m = corners[..., 2].max()
        assert built.facade.height_m + 1 < ridge_m < built.facade.height_m + built.depth_m / 2 + 1


def test_a_house_is_closed_as_seen_from_the_street(houses):
    for built in houses:
        for azimuth in -np.pi / 2 + np.linspace(-1.2, 1.2, 4):
            assert inside_seen(built.facets, azimuth, eye_m=1.6) < 0.02


@pytest.mark.parametrize("name", ["wall", "bin", "tree", "lamp", "sign"])
def test_small_things_are_closed_for_who_stands_beside_them(materials, name):
    limit = 0.06 if name == "sign" else 0.02  # between its face and its back there is a slit
    for seed in range(3):
        made = furniture(materials, seed)[name]
        for azimuth in (0.4, 2.0, 3.7, 5.3):
            assert inside_seen(made, azimuth, eye_m=1.6) < limit


@pytest.mark.parametrize("sides", [3, 4, 6, 9])
def test_a_prism_looks_outward_all_around(materials, sides):
    made = objects.prism(materials.metal, 0.4, -0.3, 2.0, sides=sides)
    assert len(made) == sides
    middle = made.corners_w.mean(1)
    outward = (normals(made) * middle)[:, :2].sum(1)
    assert outward.min() > 0.4 * np.cos(np.pi / sides) - 1e-9
    assert_allclose(np.hypot(made.corners_w[..., 0], made.corners_w[..., 1]), 0.4)
    assert_allclose(np.unique(made.corners_w[..., 2]), [-0.3, 2.0])


def test_a_wall_has_its_size_and_begins_below_the_ground(materials):
    made = objects.wall(materials.planks, 5.0, 1.4, 0.3)
    corners = made.corners_w.reshape(-1, 3)
    assert_allclose(corners.max(0), [2.5, 0.15, 1.4])
    assert_allclose(corners.min(0)[:2], [-2.5, -0.15])
    assert corners[:, 2].min() < -1
    outward = (normals(made) * (made.corners_w.mean(1) - (0, 0, 0.7))).sum(1)
    assert outward.min() > 0


@pytest.mark.parametrize("seed", range(6))
def test_a_tree_is_as_large_as_asked_for(materials, seed):
    crown_m = rng(seed).uniform(1.3, 2.8)
    height_m = 2 * crown_m + rng(seed + 50).uniform(1.8, 3)
    trunk, crown = objects.tree(rng(seed), materials, height_m, crown_m)
    assert isinstance(crown, Balls) and len(crown) > 20
    low = (crown.centre_w[:, 2] - crown.radius).min()
    high = (crown.centre_w[:, 2] + crown.radius).max()
    assert low > 0.8  # no leaves on the ground
    assert height_m - 0.3 * crown_m < high < height_m + 0.6 * crown_m
    reach = np.linalg.norm(crown.centre_w[:, :2], axis=1) + crown.radius
    assert 0.9 * crown_m < reach.max() < 1.4 * crown_m
    assert trunk.corners_w[..., 2].min() < 0 and low < trunk.corners_w[..., 2].max() < high
    assert np.hypot(*trunk.corners_w[..., :2].reshape(-1, 2).T).max() < 0.3
    assert_allclose(crown.heart_w, np.tile(crown.centre_w.mean(0), (len(crown), 1)))


def test_a_crown_has_no_gap_that_one_looks_through(materials):
    _, crown = objects.tree(rng(1), materials, 6.0, 1.8)
    K = np.array([[120.0, 0, 60], [0, 120.0, 60], [0, 0, 1]])
    rows, columns = np.mgrid[:120, :120] - 60
    core = np.hypot(rows, columns) < 120 * 0.6 * 1.8 / 9.0
    for azimuth in (0.0, 1.0, 4.0):
        T_w_c = look_at(crown.heart_w[0], 9.0, azimuth, 0.05)
        centres = (crown.centre_w - T_w_c[:3, 3]) @ T_w_c[:3, :3]
        rays = camera_rays(K, (120, 120), 1)
        hits = cast(rays, np.zeros((0, 4, 3)), centres, crown.radius)
        assert (hits.surface[core] != NOTHING).all()


def test_a_lamp_reaches_over_the_street(materials):
    corners = objects.lamp(materials).corners_w.reshape(-1, 3)
    over = corners[corners[:, 1] < -0.2]
    assert -2 < corners[:, 1].min() < -1.4 and over[:, 2].min() > 4.5
    assert np.abs(corners[:, 0]).max() < 0.3 and corners[:, 2].max() < 7


def test_signs_face_backwards_and_high(materials):
    seen = set()
    for seed in range(12):
        made = objects.sign(rng(seed), materials)
        painted = made.chart[:, 4] == 0
        assert painted.sum() in (1, 3)  # an octagon has three
        assert_allclose(normals(made)[painted], [[-1, 0, 0]] * painted.sum(), atol=1e-12)
        assert made.corners_w[painted][..., 2].min() > 1.7
        seen.add(tuple(made.chart[painted][0]))
        # Up on the picture is up in the world, and its columns go to the right of who reads it.
        texels = made.texels[painted][0]
        assert texels[1, 2] < 0 and texels[0, 1] < 0
    assert len(seen) == len(materials.signs)


def test_bins_stand_on_the_ground_and_have_the_size_asked_for(materials):
    for size in ((0.6, 0.6, 1.1), (1.0, 0.4, 1.2)):
        corners = objects.dustbin(rng(1), materials, size).corners_w.reshape(-1, 3)
        assert_allclose(corners.min(0), [-size[0] / 2, -size[1] / 2, 0])
        assert_allclose(np.ptp(corners, axis=0), size)
