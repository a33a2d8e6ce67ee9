"""The way of images through a network: the same answers in any company, counted and reported."""

from __future__ import annotations

import logging
import os
import signal

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import metrics
from datasets.lidar import read_depth_png
from evaluation import media, predicting
from evaluation.depth_outputs import SUFFIX_OF, Wanted
from evaluation.inference import DepthNetwork
from evaluation.media import ImageFiles, Reading, Video, find_sources
from evaluation.point_cloud import Pinhole
from evaluation.predicting import DepthCounts, compile_networks, predict, total_images
from evaluation.weights import open_depth
from tests.evaluation_tree import SIDE, Oracle, write_weights
from tests.image_tree import picture
from tests.media_files import (
    files_in,
    read_ply,
    read_video,
    write_image,
    write_video,
)
from utils import UserError

SIZE = SIDE, SIDE
CPU = torch.device("cpu")


class Seeing:
    """A network that says of each pixel how bright it is: 1 / depth is from 0.01 to 0.5 [1/m]."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def inverse_depth(self, images):
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, SIDE, SIDE)
        self.batches.append(len(images))
        return 0.01 + 0.49 * images.float().mean(1, keepdim=True) / 255


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return open_depth(write_weights(tmp_path_factory.mktemp("run") / "weights_0"), CPU)


def images_in(folder, count=4, size=(60, 40)) -> ImageFiles:
    return ImageFiles([write_image(folder / f"{i}.png", size, i) for i in range(count)])


def arrays(folder) -> dict[str, np.ndarray]:
    return {path.name: np.load(path) for path in folder.glob("*.npy")}


def run(network, sources, out, kinds=("npy",), **asked):
    reading = {name: asked.pop(name) for name in list(asked) if name in Reading.__annotations__}
    return predict(network, sources, Reading(SIZE, **reading), Wanted(out, kinds, **asked))


@pytest.mark.parametrize("size", [(60, 40), SIZE, (1, 1), (1, 200), (300, 5)])
def test_a_known_plane_comes_out_in_exactly_its_metres(size, tmp_path):
    source = ImageFiles([write_image(tmp_path / "a.png", size)])
    out, pinhole = tmp_path / "out", Pinhole.of(50, 50, 30, 20)
    run(Oracle(12.5), [source], out, tuple(SUFFIX_OF), pinhole=pinhole)
    width, height = size
    png = read_depth_png(out / "a_depth.png")
    assert png.shape == (height, width) and (png == 12.5).all()
    assert_allclose(np.load(out / "a_depth.npy"), np.full((height, width), 12.5), rtol=1e-6)
    points, colours = read_ply(out / "a.ply")
    v, u = np.indices((height, width)).reshape(2, -1)
    assert_allclose(points[:, 0], (u - 30) * 12.5 / 50, rtol=1e-5, atol=1e-5)
    assert_allclose(points[:, 1], (v - 20) * 12.5 / 50, rtol=1e-5, atol=1e-5)
    assert_allclose(points[:, 2], 12.5, rtol=1e-6)
    assert np.array_equal(colours, picture(0, size).reshape(-1, 3)[:, ::-1])
    shown = cv2.imread(str(out / "a_colour.png"))
    assert shown.shape == (height, 2 * width, 3)


def test_an_image_of_the_networks_size_has_the_networks_own_depth(weights, tmp_path):
    source, network = images_in(tmp_path, 2, SIZE), DepthNetwork(weights)
    run(network, [source], tmp_path / "out", batch_size=2)
    seen = [picture(i, SIZE)[..., ::-1].transpose(2, 0, 1) for i in range(2)]
    expected = 1 / network.inverse_depth(torch.from_numpy(np.stack(seen))).numpy()
    for i in range(2):
        got = np.load(tmp_path / "out" / f"{i}_depth.npy")
        assert np.array_equal(got, expected[i, 0])


def test_what_is_resized_is_inverse_depth(tmp_path):
    source = images_in(tmp_path, 1, (150, 80))
    run(Seeing(), [source], tmp_path / "out")
    (frame,) = next(source.batches(Reading(SIZE)))
    inverse = metrics.resize_disparity(Seeing().inverse_depth(frame.resized[None]), (80, 150))
    assert np.array_equal(np.load(tmp_path / "out/0_depth.npy"), 1 / inverse[0, 0].numpy())


def test_batches_and_workers_change_nothing(weights, tmp_path):
    source, network = images_in(tmp_path, 4), DepthNetwork(weights)
    run(network, [source], tmp_path / "alone")
    run(network, [source], tmp_path / "three", batch_size=3, workers=2)
    alone, three = arrays(tmp_path / "alone"), arrays(tmp_path / "three")
    assert alone.keys() == three.keys() and len(alone) == 4
    for name, array in alone.items():
        assert_allclose(three[name], array, rtol=1e-5)
    assert abs(alone["0_depth.npy"] - alone["1_depth.npy"]).max() > 1e-3


def test_images_of_several_sizes_share_a_batch(tmp_path):
    sizes = [(60, 40), (40, 60), (7, 9)]
    paths = [write_image(tmp_path / f"{i}.png", size) for i, size in enumerate(sizes)]
    network = Seeing()
    run(network, [ImageFiles(paths)], tmp_path / "out", batch_size=8)
    assert network.batches == [3]
    for i, size in enumerate(sizes):
        assert np.load(tmp_path / f"out/{i}_depth.npy").shape == size[::-1]


# Videos


def test_a_video_has_a_picture_and_files_of_each_frame(tmp_path):
    source = Video(write_video(tmp_path / "v.mp4", frames=7, size=(96, 64), fps=12.5))
    out = tmp_path / "out"
    report = run(Seeing(), [source], out, ("colour", "png16", "npy"), batch_size=3, nearest_m=2)
    frames, fps = read_video(out / "v_colour.mp4")
    assert report.images == len(frames) == 7 and fps == pytest.approx(12.5)
    for i, shown in enumerate(frames):
        assert shown.shape == (64, 192, 3)
        assert abs(shown[:, :90].mean() - 20 * i) < 9
        depth = np.load(out / f"v_{i:06d}_depth.npy")
        assert_allclose(depth, 1 / (0.01 + 0.49 * 20 * i / 255), rtol=0.2)
        assert_allclose(read_depth_png(out / f"v_{i:06d}_depth.png"), depth, atol=1 / 256)
    assert len(files_in(out)) == 1 + 2 * 7


def test_a_shortened_video_takes_as_long(tmp_path):
    source = Video(write_video(tmp_path / "v.mp4", frames=7, fps=12))
    report = run(Seeing(), [source], tmp_path / "out", ("colour",), every=3)
    frames, fps = read_video(tmp_path / "out" / "v_colour.mp4")
    assert report.images == len(frames) == 3 and fps == pytest.approx(4)
    assert files_in(tmp_path / "out") == ["v_colour.mp4"]


def test_no_more_than_a_batch_of_a_video_is_held(tmp_path, monkeypatch):
    source = Video(write_video(tmp_path / "v.mp4", frames=10))
    alive, most = set(), [0]

    class Tracked(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    real = media.cv2.cvtColor

    def converted(bgr, code):
        image = real(bgr, code).view(Tracked)
        alive.add(id(image))
        most[0] = max(most[0], len(alive))
        return image

    monkeypatch.setattr(media, "cv2", type("cv2", (), {**vars(cv2), "cvtColor": converted}))
    run(Seeing(), [source], tmp_path / "out", batch_size=2)
    assert 2 <= most[0] <= 4  # a batch, and the next one


@pytest.fixture
def camera(tmp_path, monkeypatch):
    """Return a camera that is interrupted after its fourth frame, and goes on after its last."""
    path, real, seen = write_video(tmp_path / "v.mp4", frames=9), cv2.VideoCapture, []

    class Endless:
        def __init__(self, origin, *_):
            self._capture = real(str(path))

        def __getattr__(self, name):
            return getattr(self._capture, name)

        def retrieve(self):
            seen.append(None)
            if len(seen) == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return self._capture.retrieve()

    camera = Video(path)
    camera.origin, camera.name, camera.announced = 0, "camera0", None
    monkeypatch.setattr(media, "cv2", type("cv2", (), {**vars(cv2), "VideoCapture": Endless}))
    return camera


def test_an_interrupted_camera_leaves_a_whole_video(camera, tmp_path):
    out = tmp_path / "out"
    report = run(Seeing(), [camera], out, ("colour", "npy"), batch_size=2)
    assert report.images == len(read_video(out / "camera0_colour.mp4")[0]) == 4
    assert len(arrays(out)) == 4 and len(files_in(out)) == 5


def test_an_interrupted_video_file_leaves_none(camera, tmp_path):
    # A shell's background jobs ignore it, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    camera.origin = tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt):
        run(Seeing(), [camera], tmp_path / "out", ("colour",))
    assert files_in(tmp_path / "out") == []


# What is counted and refused


def test_broken_images_end_the_run_or_are_counted(tmp_path, caplog):
    source = images_in(tmp_path, 5)
    source.paths[1].write_text("no image")
    source.paths[3].unlink()
    with pytest.raises(UserError, match=r"1\.png: not an image"):
        run(Seeing(), [source], tmp_path / "first")
    assert files_in(tmp_path / "first") == ["0_depth.npy"]
    with caplog.at_level(logging.WARNING):
        report = run(Seeing(), [source], tmp_path / "out", skip_broken=True, batch_size=2)
    assert sorted(arrays(tmp_path / "out")) == [f"{i}_depth.npy" for i in (0, 2, 4)]
    assert (report.images, report.broken) == (3, 2)
    assert [message.split(": ")[0][-5:] for message in caplog.messages] == ["1.png", "3.png"]
    (first, *_) = report.lines(Wanted(tmp_path, ("npy",)))
    assert first.startswith("3 images, 2 that cannot be read skipped: ")


def test_nothing_but_broken_images_is_a_report_too(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    sources = find_sources([str(tmp_path / "a.png")])
    report = run(Seeing(), sources, tmp_path / "out", skip_broken=True)
    lines = report.lines(Wanted(tmp_path))
    assert lines == ["no image, 1 that cannot be read skipped"]


def test_progress_counts_every_image(tmp_path):
    sources = [images_in(tmp_path, 3), Video(write_video(tmp_path / "v.mp4", frames=4))]
    done, reading = [], Reading(SIZE, batch_size=2)
    predict(Seeing(), sources, reading, Wanted(tmp_path / "out", ("npy",)), done.append)
    assert done == [2, 1, 2, 2] and total_images(sources, reading) == sum(done)
    sources[1].announced = None
    assert total_images(sources, reading) is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0.0, -0.1])
def test_depths_that_are_no_numbers_are_refused(wrong, tmp_path):
    class Wrong(Seeing):
        def inverse_depth(self, images):
            inverse = super().inverse_depth(images)
            inverse[-1, 0, 3, 3] = wrong
            return inverse

    with pytest.raises(UserError, match="depths that are no numbers"):
        run(Wrong(), [images_in(tmp_path, 1)], tmp_path / "out")
    assert files_in(tmp_path / "out") == []


def test_a_file_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "a_depth.npy")

    monkeypatch.setattr(predicting, "write_image", full)
    with pytest.raises(OSError, match="No space left"):
        run(Seeing(), [images_in(tmp_path, 1)], tmp_path / "out")


@pytest.mark.parametrize("asked", [{"every": 2}, {"max_frames": 3}])
def test_frames_are_of_videos(asked, tmp_path):
    with pytest.raises(UserError, match="--every and --max_frames are for videos"):
        run(Seeing(), [images_in(tmp_path, 1)], tmp_path / "out", **asked)


def test_intrinsics_of_another_size_are_refused_before_anything_is_written_of_the_image(tmp_path):
    paths = [write_image(tmp_path / "a.png", (60, 40)), write_image(tmp_path / "b.png", (61, 40))]
    with pytest.raises(UserError, match="b: 61x40 pixels, but the intrinsics"):
        run(
            *(Seeing(), [ImageFiles(paths)], tmp_path / "out", ("png16", "ply")),
            pinhole=Pinhole.of(50, 50, 30, 20),
        )
    assert files_in(tmp_path / "out") == ["a.ply", "a_depth.png"]


# Depths


def test_quantiles_of_counted_depths_are_those_of_the_depths():
    generator = torch.Generator().manual_seed(0)
    counts, depths = DepthCounts(), []
    for _ in range(5):
        depth = 10 ** (torch.rand(3, 1, 40, 50, generator=generator) * 3 - 0.5)
        counts.add(1 / depth)
        depths.append(depth)
    together = torch.cat(depths).flatten()
    for share in (0.05, 0.5, 0.95):
        assert counts.quantile(share) == pytest.approx(together.quantile(share).item(), rel=6e-3)
    beyond = (together > 100).double().mean().item()
    assert counts.share_beyond(100) == pytest.approx(beyond, abs=2e-3)


def test_the_report_says_what_16_bits_cut(tmp_path):
    near = run(Oracle(250), [images_in(tmp_path, 1)], tmp_path / "near", ("png16",))
    far = run(Oracle(260), [images_in(tmp_path, 1)], tmp_path / "far", ("png16",))
    wanted = Wanted(tmp_path, ("png16",))
    assert "beyond 255" not in "\n".join(near.lines(wanted))
    assert "100 % of the depths are beyond 255.996 m" in "\n".join(far.lines(wanted))
    assert "16 bits" not in "\n".join(far.lines(Wanted(tmp_path, ("npy",))))
    assert "median 260 m" in "\n".join(far.lines(wanted))


def test_the_first_batch_is_not_timed_if_there_is_another(tmp_path):
    once = run(Seeing(), [images_in(tmp_path, 3)], tmp_path / "a", batch_size=4)
    more = run(Seeing(), [images_in(tmp_path, 5)], tmp_path / "b", batch_size=2)
    assert (once.images, once.network_images) == (3, 3)
    assert (more.images, more.network_images) == (5, 3)


# Compiling


def test_both_networks_are_compiled_and_asked_as_they_will_be(weights, monkeypatch):
    compiled, network = [], Seeing()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    compile_networks(weights, network, 3)
    assert compiled == [weights.models["encoder"], weights.models["depth"]]
    assert network.batches == [3]


def test_a_compiler_that_is_not_there_is_one_line(weights, monkeypatch):
    class Uncompiled:
        def inverse_depth(self, images):
            raise RuntimeError("no C++ compiler\nand a page of what to do")

    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)
    with pytest.raises(UserError) as error:
        compile_networks(weights, Uncompiled(), 3)
    assert "no C++ compiler" in str(error.value) and "\n" not in str(error.value)
