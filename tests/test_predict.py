"""`predict.py` from its words to its files, and every mistake in one line."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

import predict
from datasets.lidar import read_depth_png
from datasets.synthetic.rig import write_calibration
from evaluation.inference import DepthNetwork
from evaluation.weights import open_depth
from tests.evaluation_tree import SIDE, write_weights
from tests.image_tree import picture
from tests.media_files import files_in, read_ply, read_video, write_image, write_video

SIZE = SIDE, SIDE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_3"
    return write_weights(folder, told={"trans_scale_factor": 2.7})


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(weights, words):
    usual = f"--load_weights_folder {weights} --no_cuda --num_workers 0"
    return predict.main([*usual.split(), *words.split()])


def test_a_folder_of_images_becomes_depth(weights, work, capsys):
    for i in range(3):
        write_image(work / "in" / f"{i}.png", SIZE, i)
    assert run(weights, "in --save png16 npy colour --batch_size 2") == 0
    kinds = ("colour.png", "depth.npy", "depth.png")
    assert files_in(work / "predictions") == [f"{i}_{kind}" for i in range(3) for kind in kinds]
    seen = [picture(i, SIZE)[..., ::-1].transpose(2, 0, 1) for i in range(3)]
    network = DepthNetwork(open_depth(weights, torch.device("cpu")))
    expected = 1 / network.inverse_depth(torch.from_numpy(np.stack(seen))).numpy()[:, 0]
    for i in range(3):
        got = np.load(work / f"predictions/{i}_depth.npy")
        assert np.allclose(got, expected[i], rtol=1e-5)
        png = read_depth_png(work / f"predictions/{i}_depth.png")
        assert abs(png - got).max() <= 0.5 / 256 + 1e-6
    said = capsys.readouterr().out
    assert f"{weights}: ResNet-18, {SIDE}x{SIDE}" in said
    assert "predicting on cpu in float32, 2 images at once" in said
    assert re.search(r"^3 images: [\d.]+ a second in all, [\d.]+ in the network alone$", said, re.M)
    (median,) = re.findall(r"depth: median ([\d.]+) m", said)
    assert float(median) == pytest.approx(np.median(expected), rel=0.02)
    assert "written to predictions: png16, npy, colour" in said


def test_options_reach_the_depths(weights, work):
    write_image(work / "a.png", (50, 30))
    usual = "a.png --save npy --out"
    assert run(weights, f"{usual} plain") == 0
    assert run(weights, f"{usual} twice --pred_depth_scale_factor 2") == 0
    assert run(weights, f"{usual} unit --trans_scale_factor 5.4") == 0
    assert run(weights, f"{usual} wide --height 64 --width 96 --post_process --amp bf16") == 0
    plain, twice, unit, wide = (
        np.load(work / name / "a_depth.npy") for name in ("plain", "twice", "unit", "wide")
    )
    assert np.allclose(twice, 2 * plain) and np.allclose(unit, 2 * plain)
    assert wide.shape == plain.shape and not np.allclose(wide, plain, rtol=1e-4)


def test_each_option_reaches_what_it_is_for(weights, work, monkeypatch):
    """What each part of the program was given, by one run for each option."""
    seen = {}

    class Spied(DepthNetwork):
        def __init__(self, opened, amp="off", post_process=False, factor=1.0):
            seen.update(size=opened.size, amp=amp, post_process=post_process, factor=factor)
            super().__init__(opened, amp, post_process, factor)

    def spied_predict(network, sources, reading, wanted, advance):
        seen.update(vars(reading) | vars(wanted))
        return plain_predict(network, sources, reading, wanted, advance)

    def spied_export(opened, file, factor, overwrite):
        seen.update(onnx=(file.name, factor, overwrite))
        return 0.0

    plain_predict = predict.predict
    monkeypatch.setattr(predict, "DepthNetwork", Spied)
    monkeypatch.setattr(predict, "predict", spied_predict)
    monkeypatch.setattr(predict, "export", spied_export)
    monkeypatch.setattr(predict, "compile_networks", lambda *given: seen.update(compiled=given[2]))
    write_image(work / "a.png", (50, 30))
    assert run(weights, "a.png --out first") == 0
    usual = dict(seen)
    assert not usual["post_process"] and usual["nearest_m"] is None and "compiled" not in usual
    for i, (words, name, value) in enumerate(
        [
            ("--post_process", "post_process", True),
            ("--amp bf16", "amp", "bf16"),
            ("--pred_depth_scale_factor 3", "factor", 3.0),
            ("--height 64 --width 96", "size", (96, 64)),
            ("--nearest 7", "nearest_m", 7.0),
            ("--batch_size 5", "batch_size", 5),
            ("--num_workers 1", "workers", 1),
            ("--skip_broken", "skip_broken", True),
            ("--overwrite", "overwrite", True),
            ("--compile", "compiled", 8),
            ("--save ply --intrinsics 50 51 20 10 --max_distance 9", "max_distance_m", 9.0),
            ("--onnx d.onnx --pred_depth_scale_factor 2", "onnx", ("d.onnx", 2.0, False)),
            ("--onnx d.onnx --overwrite", "onnx", ("d.onnx", 1.0, True)),
        ]
    ):
        seen.clear()
        assert run(weights, f"a.png --out {i} {words}") == 0
        assert seen[name] == value, words
        assert usual.get(name) != value, words
        if "ply" in words:
            assert seen["pinhole"].K.tolist() == [[50, 0, 20], [0, 51, 10], [0, 0, 1]]


def test_what_would_be_refused_later_is_refused_before_the_export(weights, work, capsys):
    write_image(work / "a.png", SIZE)
    assert run(weights, "a.png") == 0
    capsys.readouterr()
    assert run(weights, "a.png --onnx d.onnx") == 2
    assert "already" in capsys.readouterr().err and not (work / "d.onnx").exists()
    assert run(weights, "a.png --every 2 --out other --onnx d.onnx") == 2
    assert "--every and --max_frames are for videos" in capsys.readouterr().err
    assert not (work / "d.onnx").exists()


def test_no_frame_of_the_run_before_stays_beside_those_of_this_one(weights, work):
    write_video(work / "v.mp4", frames=5)
    assert run(weights, "v.mp4 --save npy") == 0
    assert len(files_in(work / "predictions")) == 5
    assert run(weights, "v.mp4 --save npy --max_frames 2 --overwrite") == 0
    assert files_in(work / "predictions") == [f"v_{i:06d}_depth.npy" for i in range(2)]


def test_a_name_that_is_no_text_is_refused_as_a_video(weights, work, capsys):
    write_video(work / "v.mp4", frames=2)
    name = b"bad\xff.mp4".decode(errors="surrogateescape")
    (work / "v.mp4").rename(work / name)
    assert predict.main([name, "--load_weights_folder", str(weights), "--no_cuda"]) == 2
    line = capsys.readouterr().err.strip()
    assert "a name that is not UTF-8" in line and "\n" not in line


def test_images_videos_and_clouds_together(weights, work, capsys):
    write_image(work / "a.png", (96, 64))
    write_video(work / "v.mp4", frames=5)
    write_calibration(work, (96, 64))
    words = "a.png v.mp4 --save colour ply --calibration calib_cam_to_cam.txt --max_distance inf"
    assert run(weights, f"{words} --max_frames 3") == 0
    frames, _ = read_video(work / "predictions" / "v_colour.mp4")
    assert len(frames) == 3 and frames[0].shape == (64, 192, 3)
    points, _ = read_ply(work / "predictions" / "v_000002.ply")
    assert len(points) == 96 * 64
    clouds = [f"v_{i:06d}.ply" for i in range(3)]
    expected = ["a.ply", "a_colour.png", *clouds, "v_colour.mp4"]
    assert files_in(work / "predictions") == expected
    assert "4 images: " in capsys.readouterr().out


def test_the_networks_alone_are_exported(weights, work, capsys):
    assert run_export(weights, "--onnx depth.onnx") == 0
    assert files_in(work) == ["depth.onnx"]
    said = capsys.readouterr().out
    (difference,) = re.findall(r"differ by at most ([\d.e-]+) of a depth", said)
    assert float(difference) < 1e-4


def run_export(weights, words):
    return predict.main(["--load_weights_folder", str(weights), *words.split()])


def test_a_second_run_overwrites_nothing_unless_asked(weights, work, capsys):
    write_image(work / "a.png")
    assert run(weights, "a.png") == 0
    before = {path: path.read_bytes() for path in (work / "predictions").iterdir()}
    write_image(work / "a.png", number=5)
    assert run(weights, "a.png") == 2
    assert "has a_colour.png, a_depth.png already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert run(weights, "a.png --overwrite") == 0
    assert {path: path.read_bytes() for path in before} != before


def test_broken_images_are_passed_over_if_asked(weights, work, capsys):
    write_image(work / "in" / "a.png")
    (work / "in" / "b.png").write_text("no image")
    assert run(weights, "in --out stopped") == 2
    assert "predict: in/b.png: not an image that can be read" in capsys.readouterr().err
    assert run(weights, "in --skip_broken --out through") == 0
    assert "1 image, 1 that cannot be read skipped: " in capsys.readouterr().out
    assert files_in(work / "through") == ["a_colour.png", "a_depth.png"]


class Evil:
    """Would write a file if it were unpickled."""

    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gone.png", "gone.png: no such file or folder"),
        ("empty", "empty: no images in it"),
        ("text.jpg", "text.jpg: not an image that can be read"),
        ("cut.jpg", "cut.jpg: a JPEG image that was cut off"),
        ("text.mp4", "text.mp4: not a video that can be read"),
        ("99", "camera 99: cannot be opened"),
        ("a.png a.png", "would have one name"),
        ("a.png --every 2", "--every and --max_frames are for videos"),
        ("a.png --save ply --calibration gone.txt", "gone.txt: no such file"),
        ("a.png --out text.jpg", "text.jpg: "),
        ("a.png --num_layers 50", "holds a ResNet-18, but --num_layers is 50"),
        ("a.png --load_weights_folder gone", "gone: no such folder"),
        ("a.png --load_weights_folder empty", "empty: has no encoder.pth"),
        ("a.png --load_weights_folder evil", "encoder.pth: refused, since it holds"),
        ("a.png --load_weights_folder evil_list", "expected tensors by name"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(words, message, weights, work, capfd):
    (work / "empty").mkdir()
    write_image(work / "a.png")
    for name in ("text.jpg", "text.mp4"):
        (work / name).write_text("nothing of this")
    whole = write_image(work / "cut.jpg", (200, 100)).read_bytes()
    (work / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name, state in (("evil", {"x": Evil()}), ("evil_list", [1, 2])):
        (work / name).mkdir()
        if name == "evil":
            (work / name / "encoder.pth").write_bytes(pickle.dumps(state, protocol=2))
        else:
            torch.save(state, work / name / "encoder.pth")
    before = sorted(work.rglob("*"))
    assert run(weights, words) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("predict: ") and message in line
    after = [path for path in sorted(work.rglob("*")) if path.name != "predictions"]
    assert after == before


def test_an_interrupt_is_said_in_one_line(weights, work, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    write_image(work / "a.png")
    monkeypatch.setattr(predict, "predict", interrupted)
    assert run(weights, "a.png") == 130
    assert capsys.readouterr().err.endswith("interrupted, files that were written are whole\n")
