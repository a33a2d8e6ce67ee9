"""Laws of the image encoder: published names, the network by hand, ImageNet weights and errors."""

from __future__ import annotations

import io
import math
from http.client import IncompleteRead
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch.testing import assert_close

from networks.resnet_encoder import ResnetEncoder, resnet_layers_of
from utils import UserError

# Blocks of each stage and convolutions of each block, from the paper on ResNets.
DEPTHS = {
    18: ((2, 2, 2, 2), 2),
    34: ((3, 4, 6, 3), 2),
    50: ((3, 4, 6, 3), 3),
    101: ((3, 4, 23, 3), 3),
    152: ((3, 8, 36, 3), 3),
}
FILE_18, FILE_50 = "resnet18-f37072fd.pth", "resnet50-0676ba61.pth"


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{n}": (channels,) for n in names} | {f"{name}.num_batches_tracked": ()}


def published_shapes(layers: int, images: int = 1, first: int = 64) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a published file, without the prefix of the encoder.

    Args:
        layers: of the ResNet
        images: that it sees
        first: channels of the first map, 64 in all that is published
    """
    stages, convs = DEPTHS[layers]
    expansion = 4 if convs == 3 else 1
    shapes = {"conv1.weight": (first, 3 * images, 7, 7), **norm_shapes("bn1", first)}
    channels = first
    for stage, blocks in enumerate(stages):
        width = first * 2**stage
        for block in range(blocks):
            name, out = f"layer{stage + 1}.{block}", width * expansion
            kernels = (1, 3, 1) if convs == 3 else (3, 3)
            path = [channels, *[width] * (convs - 1), out]
            for i, kernel in enumerate(kernels):
                shapes[f"{name}.conv{i + 1}.weight"] = (path[i + 1], path[i], kernel, kernel)
                shapes |= norm_shapes(f"{name}.bn{i + 1}", path[i + 1])
            if block == 0 and (channels != out or stage > 0):
                shapes[f"{name}.downsample.0.weight"] = (out, channels, 1, 1)
                shapes |= norm_shapes(f"{name}.downsample.1", out)
            channels = out
    return shapes | {"fc.weight": (1000, channels), "fc.bias": (1000,)}


def random_weights(
    shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    """Return kernels that keep the size of what goes through, and norms that do something."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) > 1:
            state[name] = (2 / math.prod(shape[1:])) ** 0.5 * torch.randn(shape, dtype=dtype)
        else:
            around = 0.7 if name.endswith(("weight", "running_var")) else -0.2
            state[name] = around + 0.4 * torch.rand(shape, dtype=dtype)
    return state


def by_hand(state: dict[str, torch.Tensor], image: torch.Tensor, layers: int):
    """Compute the five maps with functions alone, as at evaluation."""
    stages, convs = DEPTHS[layers]

    def norm(x, name):
        mean, variance, weight, bias = (
            state[f"{name}.{n}"].view(-1, 1, 1)
            for n in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def conv(x, name, stride):
        kernel = state[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = norm(conv((image - 0.45) / 0.225, "conv1", 2), "bn1").clamp(min=0)
    features = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            skipped = x
            if f"{name}.downsample.0.weight" in state:
                skipped = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            for i in range(1, convs + 1):
                # The 3x3 convolution has the stride: the first of two, the second of three.
                x = conv(x, f"{name}.conv{i}", stride if i == convs - 1 else 1)
                x = norm(x, f"{name}.bn{i}")
                x = (x + skipped if i == convs else x).clamp(min=0)
        features.append(x)
    return features


@pytest.fixture
def imagenet_18() -> dict[str, torch.Tensor]:
    """Stand in for what torchvision's file holds."""
    return random_weights(published_shapes(18), torch.float32)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """Let torch's cache be an empty folder, and return it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def offline(monkeypatch) -> None:
    def refuse(*_):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


# Names and values


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("layers", DEPTHS)
def test_parameters_have_the_published_names_and_shapes_or_half_the_channels(
    layers, images, narrow
):
    with torch.device("meta"):
        encoder = ResnetEncoder(layers, images, narrow)
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    published = published_shapes(layers, images, 32 if narrow else 64)
    assert shapes == {f"encoder.{name}": shape for name, shape in published.items()}


@pytest.mark.parametrize(
    ("layers", "images", "narrow"),
    [(18, 1, False), (18, 2, False), (34, 1, False), (50, 2, False), (18, 2, True), (50, 1, True)],
)
def test_features_are_those_computed_by_hand(layers, images, narrow):
    encoder = ResnetEncoder(layers, images, narrow).double().eval()
    state = random_weights(published_shapes(layers, images, 32 if narrow else 64))
    encoder.load_state_dict({f"encoder.{name}": value for name, value in state.items()})
    image = torch.rand(2, 3 * images, 64, 96, dtype=torch.float64)
    kept = image.clone()
    with torch.no_grad():
        features = encoder(image)
        expected = by_hand(state, image, layers)
    assert torch.equal(image, kept)
    assert [x.shape[1] for x in features] == list(encoder.num_ch_enc)
    assert [tuple(x.shape[2:]) for x in features] == [(64 >> s, 96 >> s) for s in range(1, 6)]
    for x, y in zip(features, expected, strict=True):
        assert y.std() > 1e-3
        assert_close(x, y, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((20,), "expected one of 18, 34, 50, 101, 152, got 20"), ((18, 0), "expected 1 or more")],
)
def test_a_network_that_does_not_exist_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResnetEncoder(*arguments)


@pytest.mark.parametrize("layers", [18, 50])
def test_a_narrow_network_begins_as_a_wide_one_does(layers):
    """Each convolution keeps the size of what goes through: He's deviation, by its own width."""
    torch.manual_seed(0)
    encoder = ResnetEncoder(layers, narrow=True).encoder
    for name, module in encoder.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert_close(module.weight.std().item(), (2 / fan_out) ** 0.5, rtol=0.1, atol=0), name
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any(), name


@pytest.mark.parametrize("narrow", [False, True])
def test_every_trainable_parameter_gets_a_gradient_and_the_classifier_is_not_one(narrow):
    encoder = ResnetEncoder(18, 2, narrow)
    features = encoder(torch.rand(2, 6, 64, 64))
    sum((x * torch.randn_like(x)).sum() for x in features).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == (not name.startswith("encoder.fc."))
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


# ImageNet weights


@pytest.mark.parametrize("images", [2, 3])
def test_equal_images_give_what_one_image_gives(images, tmp_path):
    torch.save(random_weights(published_shapes(18)), tmp_path / "r18.pth")
    one, several = ResnetEncoder(18), ResnetEncoder(18, images)
    for encoder in (one, several):
        encoder.double().eval().load_imagenet(tmp_path / "r18.pth")
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for x, y in zip(one(image), several(image.repeat(1, images, 1, 1)), strict=True):
            assert_close(x, y, atol=1e-10, rtol=1e-9)
    kernel = several.encoder.conv1.weight.unflatten(1, (images, 3))
    assert torch.equal(kernel, kernel[:, :1].expand_as(kernel))  # no image counts more


def test_all_weights_of_a_file_are_taken_and_the_classifier_stays_still(imagenet_18, tmp_path):
    torch.save(imagenet_18, tmp_path / "r18.pth")
    encoder = ResnetEncoder(18)
    encoder.load_imagenet(tmp_path / "r18.pth")
    for name, value in encoder.encoder.state_dict().items():
        assert_close(value, imagenet_18[name], msg=name)
    assert not encoder.encoder.fc.weight.requires_grad
    assert encoder.encoder.conv1.weight.requires_grad


@pytest.mark.parametrize("classes", [None, 365])
def test_a_file_may_lack_the_classifier_or_know_other_classes(classes, imagenet_18, tmp_path):
    for name in ("fc.weight", "fc.bias"):
        value = imagenet_18.pop(name)
        if classes:
            imagenet_18[name] = value[:classes]
    # Old files of torchvision do not count batches.
    old = {k: v for k, v in imagenet_18.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "r18.pth")
    encoder = ResnetEncoder(18)
    encoder.load_imagenet(tmp_path / "r18.pth")
    assert_close(encoder.encoder.layer4[1].conv2.weight, imagenet_18["layer4.1.conv2.weight"])
    assert encoder.encoder.fc.weight.shape == (1000, 512)


def test_a_folder_has_a_file_for_each_depth(imagenet_18, tmp_path):
    torch.save(imagenet_18, tmp_path / FILE_18)
    encoder = ResnetEncoder(18)
    encoder.load_imagenet(tmp_path)
    assert_close(encoder.encoder.bn1.weight, imagenet_18["bn1.weight"])
    with torch.device("meta"):
        deeper = ResnetEncoder(50)
    with pytest.raises(UserError, match=f"{FILE_50}: no such file") as error:
        deeper.load_imagenet(tmp_path)
    assert "--pretrained_path" in one_line(error)


@pytest.mark.usefixtures("offline")
def test_weights_in_the_cache_of_torch_are_not_downloaded_again(empty_cache, imagenet_18):
    torch.save(imagenet_18, empty_cache / FILE_18)
    encoder = ResnetEncoder(18)
    encoder.load_imagenet()
    assert_close(encoder.encoder.layer1[0].conv1.weight, imagenet_18["layer1.0.conv1.weight"])


@pytest.mark.parametrize(
    "failure",
    [URLError("no route to host"), OSError("\n"), TimeoutError(), IncompleteRead(b"")],
    ids=lambda error: type(error).__name__,
)
def test_without_a_network_both_ways_out_are_named(failure, empty_cache, monkeypatch):
    def fail(*_):
        raise failure

    monkeypatch.setattr("torch.hub.urlopen", fail)
    with pytest.raises(UserError) as error:
        ResnetEncoder(18).load_imagenet()
    message = one_line(error)
    assert f"/{FILE_18}" in message
    assert "--pretrained_path FILE" in message and "--weights_init scratch" in message
    assert list(empty_cache.iterdir()) == []


def test_a_wrong_download_is_not_used(empty_cache, monkeypatch):
    class Answer(io.BytesIO):
        def info(self):
            return self

        def get_all(self, _):
            return None

    monkeypatch.setattr("torch.hub.urlopen", lambda *_: Answer(b"<html>please log in</html>"))
    with pytest.raises(UserError, match="cannot be downloaded .*hash"):
        ResnetEncoder(18).load_imagenet()
    assert list(empty_cache.iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_a_broken_file_in_the_cache_is_named(empty_cache):
    (empty_cache / FILE_18).write_bytes(b"cut off")
    with pytest.raises(UserError, match="remove it to download it again") as error:
        ResnetEncoder(18).load_imagenet()
    assert one_line(error).startswith(str(empty_cache / FILE_18))


def test_a_file_of_another_depth_is_refused_by_name(tmp_path):
    shapes = published_shapes(50)
    torch.save({name: torch.zeros(()).expand(s) for name, s in shapes.items()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds a ResNet-50, but a ResNet-18") as error:
        ResnetEncoder(18).load_imagenet(tmp_path / "x.pth")
    message = one_line(error)
    assert message.startswith(str(tmp_path / "x.pth")) and "--num_layers" in message


def prefixed(state):
    return {f"encoder.{name}": value for name, value in state.items()}


def six_channels(state):
    return state | {"conv1.weight": torch.zeros(64, 6, 7, 7)}


def flat_kernel(state):
    return state | {"conv1.weight": torch.zeros(1, 1, 1, 3, 7)}


def no_tensor(state):
    return state | {"conv1.weight": 192}


def one_less(state):
    return {name: value for name, value in state.items() if name != "layer3.0.bn2.bias"}


def one_more(state):
    return state | {"layer9.weight": torch.zeros(1)}


def no_first(state):
    return {name: value for name, value in state.items() if name != "conv1.weight"}


@pytest.mark.parametrize(
    "change", [prefixed, six_channels, flat_kernel, no_tensor, one_less, one_more, no_first]
)
def test_a_file_of_something_else_is_refused(change, imagenet_18, tmp_path):
    torch.save(change(imagenet_18), tmp_path / "x.pth")
    with pytest.raises(UserError, match="as torchvision saves it") as error:
        ResnetEncoder(18).load_imagenet(tmp_path / "x.pth")
    assert one_line(error).startswith(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_a_file_that_is_missing_or_broken_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises((UserError, OSError)) as error:
        ResnetEncoder(18).load_imagenet(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in one_line(error)


@pytest.mark.parametrize("given", [False, True])
def test_a_narrow_network_does_not_begin_with_imagenet(given, empty_cache, tmp_path):
    narrow = {name: torch.zeros(s) for name, s in published_shapes(18, first=32).items()}
    torch.save(narrow, tmp_path / "x.pth")
    encoder = ResnetEncoder(18, narrow=True)
    with pytest.raises(UserError, match="ImageNet, whose weights are twice as wide") as error:
        encoder.load_imagenet(tmp_path / "x.pth" if given else None)
    assert "--weights_init scratch" in one_line(error)
    assert list(empty_cache.iterdir()) == []


def test_a_narrow_file_is_not_loaded_into_a_wide_network(tmp_path):
    narrow = {name: torch.zeros(s) for name, s in published_shapes(18, first=32).items()}
    torch.save(narrow, tmp_path / "x.pth")
    with pytest.raises(UserError, match="as torchvision saves it .*size mismatch") as error:
        ResnetEncoder(18).load_imagenet(tmp_path / "x.pth")
    assert one_line(error).startswith(str(tmp_path / "x.pth"))


# Recognition


@pytest.mark.parametrize("first", [64, 32], ids=["wide", "narrow"])
@pytest.mark.parametrize("prefix", ["", "encoder."])
@pytest.mark.parametrize("layers", DEPTHS)
def test_a_resnet_is_recognised(layers, prefix, first):
    shapes = published_shapes(layers, 2, first)
    state = {prefix + name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    assert resnet_layers_of(state | {"height": 192, "use_stereo": False}) == layers


@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnext50_32x4d", "vgg11", "resnet50"])
def test_other_networks_are_not_taken_for_one(name):
    with torch.device("meta"):
        state = torchvision.models.get_model(name, weights=None).state_dict()
    if name == "resnet50":
        state = {key: value for key, value in state.items() if not key.startswith("layer3.4.")}
    assert resnet_layers_of(state) is None


@pytest.mark.parametrize("state", [{}, {"layer1.0.conv1.weight": 3}, {"fc.bias": torch.zeros(1)}])
def test_something_else_is_not_a_resnet(state):
    assert resnet_layers_of(state) is None
