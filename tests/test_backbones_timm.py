"""timm backbones: what is said without timm, and what they do with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyimgano.backbones import available_taps, create_backbone
from pyimgano_runtime.errors import ConfigError

# A residual network, one whose features_only form is a class of its own, a vision
# transformer of any input size, and one that puts channels last.
FAMILIES = (
    "resnet18",
    "mobilenetv3_small_050",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
)


def test_without_timm_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    for ask in (
        lambda: create_backbone("timm:resnet18", taps=["stride8"]),
        lambda: available_taps("timm:resnet18"),
    ):
        with pytest.raises(ConfigError, match="need timm: pip install timm"):
            ask()


def test_a_timm_that_cannot_be_imported_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / "timm.py").write_text(broken, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)

    with pytest.raises(ConfigError, match="torchvision::nms does not exist"):
        create_backbone("timm:resnet18", taps=["stride8"])


def test_backbones_are_imported_without_timm() -> None:
    code = "import sys, pyimgano.backbones; sys.exit('timm' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory: pytest.TempPathFactory):
    """Writes a whole timm model, classifier included, as the hub has it."""
    import safetensors.torch
    import timm

    folder = tmp_path_factory.mktemp("weights")

    def write(model: str) -> Path:
        path = folder / f"{model}.safetensors"
        if not path.exists():
            torch.manual_seed(3)
            state = timm.create_model(model, pretrained=False).state_dict()
            tensors = {key: value.contiguous() for key, value in state.items()}
            safetensors.torch.save_file(tensors, path)
        return path

    return write


@pytest.mark.timm
@pytest.mark.parametrize("model", FAMILIES)
def test_features_equal_those_of_timm(model: str, weights_of) -> None:
    import safetensors.torch
    import timm

    path = weights_of(model)
    name = f"timm:{model}"
    last, middle = len(available_taps(name)) - 1, 1
    asked = [available_taps(name)[index].name for index in (last, middle)]
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    backbone = create_backbone(name, taps=asked, weights_file=path)
    features = backbone(pixels)

    reference = timm.create_model(
        model, features_only=True, out_indices=[middle, last]
    ).eval()
    state = safetensors.torch.load_file(path)
    prefix = "model." if next(iter(reference.state_dict())).startswith("model.") else ""
    flat = {
        prefix
        + key.replace("layers.", "layers_" if "swin" in model else "layers.", 1): v
        for key, v in state.items()
    }
    missing, _ = reference.load_state_dict(flat, strict=False)
    assert not missing
    with torch.inference_mode():
        shallow, deep = reference(pixels)
    if "swin" in model:  # (N, h, w, C)
        shallow, deep = shallow.permute(0, 3, 1, 2), deep.permute(0, 3, 1, 2)
    assert torch.equal(features[0], deep)
    assert torch.equal(features[1], shallow)
    for tap, feature in zip(backbone.taps, features, strict=True):
        side = 224 // tap.stride
        assert feature.shape == (2, tap.channels, side, side)


@pytest.mark.timm
def test_a_state_dict_rebuilds_a_timm_backbone(weights_of) -> None:
    original = create_backbone(
        "timm:resnet18", taps=["stride16"], weights_file=weights_of("resnet18")
    )
    rebuilt = create_backbone("timm:resnet18", taps=["stride16"], pretrained=False)

    rebuilt.load_state_dict(original.state_dict())

    pixels = torch.zeros(1, 3, 64, 64)
    assert torch.equal(rebuilt(pixels)[0], original(pixels)[0])
    assert not any(key.startswith("_network.layer4") for key in original.state_dict())


@pytest.mark.timm
def test_normalization_is_on_the_scale_of_pixels() -> None:
    backbone = create_backbone("timm:resnet18", taps=["stride8"], pretrained=False)

    assert backbone.pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert backbone.pixel_std == pytest.approx((58.395, 57.12, 57.375))


@pytest.mark.timm
def test_batch_norm_of_a_timm_backbone_ignores_training_mode(weights_of) -> None:
    backbone = create_backbone(
        "timm:resnet18", taps=["stride8"], weights_file=weights_of("resnet18")
    )
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    [expected] = backbone(pixels)

    torch.nn.Sequential(backbone).train()

    assert torch.equal(backbone(pixels)[0], expected)


@pytest.mark.timm
def test_a_vision_transformer_takes_other_sizes() -> None:
    backbone = create_backbone(
        "timm:vit_tiny_patch16_224", taps=["blocks.5"], pretrained=False
    )

    [feature] = backbone(torch.zeros(1, 3, 256, 192))

    assert feature.shape == (1, 192, 16, 12)


@pytest.mark.timm
@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_050"])
def test_weights_of_another_model_are_refused(model: str, weights_of) -> None:
    other = weights_of("vit_tiny_patch16_224")

    with pytest.raises(ConfigError, match="does not hold the weights of timm:"):
        create_backbone(f"timm:{model}", taps=["stride8"], weights_file=other)


@pytest.mark.timm
def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "weights.safetensors"
    text.write_text("no tensors here", encoding="utf-8")
    whole = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "model": {}}, whole)

    for path in (text, whole):
        with pytest.raises(ConfigError, match="expected safetensors, or a state dict"):
            create_backbone("timm:resnet18", taps=["stride8"], weights_file=path)


@pytest.mark.timm
def test_an_unknown_model_names_the_closest() -> None:
    with pytest.raises(ConfigError, match='did you mean "resnet18"'):
        create_backbone("timm:resnet_18", taps=["stride8"])


@pytest.mark.timm
def test_an_unknown_weights_tag_is_refused() -> None:
    with pytest.raises(ConfigError, match="Invalid pretrained tag"):
        create_backbone("timm:resnet18.no_such_tag", taps=["stride8"])


@pytest.mark.timm
def test_without_internet_the_error_says_how_to_work_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ConfigError, match=r"weights_file.*HF_HOME"):
        create_backbone("timm:resnet18", taps=["stride8"])
