"""Networks from folders of weights: what the files say, what opt.json adds, what is refused."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch

import options
from evaluation import weights
from evaluation.weights import TRAINED_WITH, choose_device, open_all, open_depth
from networks.motion_forms import DRIVING, VELOCITY
from tests.evaluation_tree import SIDE, write_weights
from utils import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Weights of a training with all networks; nothing is changed in them."""
    return write_weights(tmp_path_factory.mktemp("run") / "models" / "weights_3", "--use_ekf")


@pytest.fixture
def own(whole, tmp_path):
    """Weights of depth that a test may change."""
    folder = tmp_path / "models" / "weights_3"
    folder.mkdir(parents=True)
    for name in ("encoder", "depth"):
        shutil.copy(whole / f"{name}.pth", folder)
    return folder


def tell(folder, **told):
    (folder.parent / "opt.json").write_text(json.dumps(told))


def test_what_is_not_told_is_what_training_has_by_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    defaults = vars(options.train([]))
    for name, (default, right) in TRAINED_WITH.items():
        if name != "split":
            assert default == defaults[name] and right(default), name


def test_the_networks_of_depth_are_those_of_the_files(whole):
    opened = open_depth(whole, CPU)
    assert list(opened.models) == ["encoder", "depth"]
    assert opened.size == (SIDE, SIDE) and opened.options.num_layers == 18
    assert not opened.models.training
    assert not any(p.requires_grad for p in opened.models.parameters())
    state = torch.load(whole / "depth.pth", weights_only=True)
    for name, value in opened.models["depth"].state_dict().items():
        assert torch.equal(value, state[name])


def test_all_networks_that_there_are_files_of_are_opened(whole, own):
    opened = open_all(whole, CPU)
    assert set(opened.models) == {path.stem for path in whole.glob("*.pth")}
    assert opened.options.use_ekf and opened.options.use_velocity and opened.options.use_gravity
    alone = open_all(own, CPU)
    assert set(alone.models) == {"encoder", "depth"} and alone.options.frame_ids == [0]


@pytest.mark.parametrize(
    "words, kind, shared",
    [
        ("--pose_model_type posecnn", "posecnn", False),
        ("--pose_model_type shared", "shared", False),
        ("--shared_motion_encoder", "separate_resnet", True),
        ("--num_layers_imu 34", "separate_resnet", False),
        ("--velocity_source camera", "separate_resnet", False),
        ("--velocity_source camera --num_layers_imu 34", "separate_resnet", False),
        ("--velocity_source camera --shared_motion_encoder", "separate_resnet", True),
    ],
)
def test_the_files_say_what_kind_of_networks_they_are(words, kind, shared, tmp_path):
    folder = write_weights(tmp_path / "weights_0", *words.split())
    opened = open_all(folder, CPU)
    assert opened.options.pose_model_type == kind
    assert opened.options.shared_motion_encoder == shared
    assert opened.options.num_layers_imu == (34 if "34" in words else 18)
    assert set(opened.models) == {path.stem for path in folder.glob("*.pth")}


def test_opt_json_beside_or_within_says_what_the_files_cannot(own):
    tell(own, min_depth=0.2, trans_scale_factor=2, scales=[0, 1, 2, 3], other=[1])
    told = open_depth(own, CPU).options
    assert (told.min_depth, told.trans_scale_factor, told.max_depth) == (0.2, 2, 100.0)
    (own / "opt.json").write_text('{"min_depth": 0.3}')
    assert open_depth(own, CPU).options.min_depth == 0.3
    assert open_depth(own, CPU).options.trans_scale_factor == 5.4
    asked = open_depth(own, CPU, min_depth=0.4, height=96, width=None)
    assert asked.options.min_depth == 0.4 and asked.size == (SIDE, 96)


def test_the_size_in_the_encoders_file_counts_more_than_that_in_opt_json(own):
    tell(own, height=192, width=640)
    assert open_depth(own, CPU).size == (SIDE, SIDE)
    state = torch.load(own / "encoder.pth", weights_only=True)
    torch.save(
        {k: v for k, v in state.items() if k not in ("height", "width")}, own / "encoder.pth"
    )
    assert open_depth(own, CPU).size == (640, 192)


def test_the_unit_that_was_found_in_training_counts_more_than_the_one_it_began_with(own):
    tell(own, trans_scale_factor=2)
    state = torch.load(own / "encoder.pth", weights_only=True)
    torch.save(state | {"trans_scale_factor": 3.25}, own / "encoder.pth")
    assert open_depth(own, CPU).options.trans_scale_factor == 3.25
    assert open_depth(own, CPU, trans_scale_factor=None).options.trans_scale_factor == 3.25
    assert open_depth(own, CPU, trans_scale_factor=4).options.trans_scale_factor == 4


@pytest.mark.parametrize("unit", [0.0, -1.0, float("nan"), "5.4", True], ids=str)
def test_an_encoder_that_says_an_impossible_unit_is_named(unit, own):
    state = torch.load(own / "encoder.pth", weights_only=True)
    torch.save(state | {"trans_scale_factor": unit}, own / "encoder.pth")
    with pytest.raises(UserError, match=r"encoder\.pth: trans_scale_factor cannot be '"):
        open_depth(own, CPU)


def test_narrow_networks_are_opened_where_they_are_told_and_named_where_not(tmp_path):
    words = ("--narrow_networks", "--motion_form", "driving", "--initial_depth_m", "8")
    told = {"narrow_networks": True, "motion_form": "driving", "motion_resolution": "half"}
    folder = write_weights(tmp_path / "models" / "weights_0", *words, told=told)
    opened = open_all(folder, CPU)
    assert set(opened.models) == {path.stem for path in folder.glob("*.pth")}
    for name in ("encoder", "pose_encoder", "velo_encoder", "gravity_encoder"):
        assert opened.models[name].num_ch_enc[0] == 32, name
    assert opened.models["velo"].form == VELOCITY[DRIVING]
    assert opened.options.motion_resolution == "half"
    bias = torch.load(folder / "depth.pth", weights_only=True)["decoder.10.conv.bias"]
    assert torch.equal(opened.models["depth"].decoder[10].conv.bias, bias)
    (folder.parent / "opt.json").unlink()
    with pytest.raises(UserError, match=r"encoder\.pth: does not fit the model encoder"):
        open_depth(folder, CPU)


def test_a_decoder_on_an_encoder_of_its_own_is_not_put_on_that_of_the_motion(whole, own):
    for name in ("pose_encoder", "pose", "velo", "gravity", "gravity_encoder"):
        shutil.copy(whole / f"{name}.pth", own)
    with pytest.raises(UserError, match=r"has no velo_encoder\.pth"):
        open_all(own, CPU)


def test_stereo_as_it_was_published_among_the_frames_is_passed_over(own):
    tell(own, frame_ids=[0, -1, 1, "s"])
    assert open_depth(own, CPU).options.frame_ids_of_training == [0, -1, 1]


def without_uncertainty(path):
    """Make weights of a pose network into those of monodepth2: six numbers for each motion."""
    state = torch.load(path, weights_only=True)
    for name in ("net.3.weight", "net.3.bias"):
        motions = state[name].unflatten(0, (-1, 12))
        state[name] = motions[:, :6].flatten(0, 1).clone()
    torch.save(state, path)


@pytest.mark.parametrize(
    "words, monodepth2, inverted",
    [
        ("", False, False),
        ("", True, True),
        ("--pose_model_input all", True, False),
        ("--pose_model_type posecnn", False, False),
        ("--pose_model_type shared", False, False),
    ],
)
def test_a_pose_network_of_monodepth2_is_known_by_its_file(words, monodepth2, inverted, tmp_path):
    told = {"pose_model_input": "all" if "all" in words else "pairs"}
    folder = write_weights(tmp_path / "models" / "weights_0", *words.split(), told=told)
    if monodepth2:
        without_uncertainty(folder / "pose.pth")
    assert open_all(folder, CPU).pose_says_second_first == inverted
    assert not open_depth(folder, CPU).pose_says_second_first


def test_the_imu_may_have_been_clipped_nowhere(own):
    (own.parent / "opt.json").write_text('{"k_imu_clip": Infinity}')
    assert open_depth(own, CPU).options.k_imu_clip == float("inf")


@pytest.mark.parametrize("scales", [(0, 2), (1, 2, 3), (3,)], ids=str)
def test_scales_that_were_not_trained_are_not_built(scales, tmp_path):
    words = ("--scales", *map(str, scales))
    folder = write_weights(tmp_path / "weights_0", *words, told={"scales": list(scales)})
    assert open_depth(folder, CPU).models["depth"].scales == scales


# Refusals


def test_another_resnet_than_was_expected_is_told_which_it_is(whole, tmp_path):
    with pytest.raises(UserError) as error:
        open_depth(whole, CPU, num_layers=50)
    assert str(error.value) == (
        f"encoder.pth in {whole} holds a ResNet-18, but --num_layers is 50. Use --num_layers 18"
    )
    assert open_depth(whole, CPU, num_layers=18).options.num_layers == 18
    fifty = write_weights(tmp_path / "r50", "--num_layers", "50")
    with pytest.raises(UserError, match="holds a ResNet-50, but --num_layers is 18"):
        open_depth(fifty, CPU, num_layers=18)
    assert open_depth(fifty, CPU).options.num_layers == 50


def test_a_decoder_of_another_resnet_is_named(own, tmp_path):
    fifty = write_weights(tmp_path / "r50", "--num_layers", "50")
    shutil.copy(fifty / "depth.pth", own)
    with pytest.raises(UserError, match=r"depth\.pth: does not fit the model depth of this run"):
        open_depth(own, CPU)


@pytest.mark.parametrize("name", ["encoder", "depth"])
def test_a_missing_file_is_named(name, own):
    (own / f"{name}.pth").unlink()
    with pytest.raises(UserError, match=f"has no {name}.pth"):
        open_depth(own, CPU)


def test_a_folder_that_is_not_there_or_holds_checkpoints_is_named(own):
    with pytest.raises(UserError, match="no such folder"):
        open_depth(own / "other", CPU)
    with pytest.raises(UserError, match=r"give .*weights_3"):
        open_depth(own.parent, CPU)


class Trap:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "list", "text"])
def test_what_is_not_plain_weights_is_refused_and_nothing_is_run(kind, own):
    path = own / "encoder.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    elif kind == "torch":
        torch.save({"encoder.conv1.weight": Trap()}, path)
    elif kind == "list":
        torch.save([torch.zeros(2)], path)
    else:
        path.write_text("weights")
    with pytest.raises(UserError, match="encoder.pth") as error:
        open_depth(own, CPU)
    assert "\n" not in str(error.value)


def test_weights_of_no_resnet_are_named(own):
    torch.save({"encoder.conv1.weight": torch.zeros(4, 3, 7, 7)}, own / "encoder.pth")
    with pytest.raises(UserError, match="holds no ResNet of 18 to 152 layers"):
        open_depth(own, CPU)


@pytest.mark.parametrize(
    "told",
    [
        {"min_depth": 0},
        {"min_depth": "0.1"},
        {"max_depth": True},
        {"max_depth": 0.05},
        {"trans_scale_factor": -5.4},
        {"trans_scale_factor": float("nan")},
        {"k_imu_clip": 0},
        {"k_imu_clip": -float("inf")},
        {"k_imu_clip": "5"},
        {"scales": []},
        {"scales": [0, True]},
        {"motion_form": "flying"},
        {"motion_resolution": "quarter"},
        {"narrow_networks": 1},
        {"velocity_source": "gps"},
        {"scales": "0"},
        {"scales": [0, 7]},
        {"height": 63},
        {"width": 10**9},
        {"frame_ids": [1]},
        {"frame_ids": {"0": 1}},
        {"pose_model_type": "other"},
        {"pose_model_type": ["pairs"]},
        {"use_stereo": 1},
        {"split": 3},
        {"noise_preset": None, "dataset": 7},
    ],
    ids=str,
)
def test_an_opt_json_that_cannot_be_is_named(told, own):
    state = torch.load(own / "encoder.pth", weights_only=True)
    for name in ("height", "width"):
        state.pop(name)
    torch.save(state, own / "encoder.pth")
    tell(own, **told)
    with pytest.raises(UserError, match=r"opt\.json: ") as error:
        open_depth(own, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"a"', "[" * 100_000, b"\xff\xfe"], ids=repr)
def test_an_opt_json_that_is_none_is_named(text, own):
    (own.parent / "opt.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="opt.json: not the options of a training"):
        open_depth(own, CPU)


def test_an_encoder_that_says_an_impossible_size_is_named(own):
    state = torch.load(own / "encoder.pth", weights_only=True)
    torch.save(state | {"height": 65}, own / "encoder.pth")
    with pytest.raises(UserError, match=r"encoder\.pth: height cannot be '65'"):
        open_depth(own, CPU)


def test_files_that_do_not_belong_together_are_told(whole, own):
    for name in ("velo", "gravity"):  # neither has an encoder
        shutil.copy(whole / f"{name}.pth", own)
    with pytest.raises(UserError, match="do not belong together"):
        open_all(own, CPU)


def test_the_gpu_is_taken_if_there_is_one_and_it_is_wanted(monkeypatch):
    for there in (False, True):
        monkeypatch.setattr(weights.torch.cuda, "is_available", lambda there=there: there)
        assert choose_device(no_cuda=False).type == ("cuda" if there else "cpu")
        assert choose_device(no_cuda=True).type == "cpu"
