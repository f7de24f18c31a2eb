"""The vision transformer with DINOv2's key names: its parts, and against timm."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from pyimgano.backbones import available_taps, create_backbone
from pyimgano.backbones.dino_vit import VARIANTS, DinoViT, cubic_matrix
from pyimgano_runtime.errors import ConfigError

# Relative to the largest feature. Measured: torch against onnxruntime 7e-7 with three
# blocks, 1e-6 with twelve; against timm 1.6e-7.
ONNX_TOLERANCE = 1e-5
TIMM_TOLERANCE = 1e-5

# What facebookresearch/dinov2 publishes for a model of one block.
PUBLISHED_KEYS = {
    "cls_token",
    "pos_embed",
    "mask_token",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "blocks.0.norm1.weight",
    "blocks.0.norm1.bias",
    "blocks.0.attn.qkv.weight",
    "blocks.0.attn.qkv.bias",
    "blocks.0.attn.proj.weight",
    "blocks.0.attn.proj.bias",
    "blocks.0.ls1.gamma",
    "blocks.0.norm2.weight",
    "blocks.0.norm2.bias",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.mlp.fc1.bias",
    "blocks.0.mlp.fc2.weight",
    "blocks.0.mlp.fc2.bias",
    "blocks.0.ls2.gamma",
    "norm.weight",
    "norm.bias",
}


def pixels(height: int, width: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=generator)


def random_state(name: str) -> dict[str, torch.Tensor]:
    """A whole published-looking state dict with numbers of one seed."""
    whole = DinoViT(name, taps=(available_taps(name)[-1],))
    generator = torch.Generator().manual_seed(1)
    state = {
        key: 0.05 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in whole.state_dict().items()
    }
    return {**state, "mask_token": torch.zeros(1, VARIANTS[name].width)}


def relative(found: np.ndarray | torch.Tensor, expected: torch.Tensor) -> float:
    difference = torch.as_tensor(found) - expected
    return float(difference.abs().max() / expected.abs().max())


@pytest.mark.parametrize(("side", "cells"), [(37, 32), (37, 5), (16, 20), (5, 1)])
def test_cubic_matrices_resample_as_torch_does(side: int, cells: int) -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 1, side, side, dtype=torch.float64, generator=generator)

    kludge = (cells + 0.1) / side  # DINOv2's factor for models without registers
    plain = cubic_matrix(side, cells, ratio=1 / kludge, antialias=False)
    expected = F.interpolate(picture, scale_factor=(kludge, kludge), mode="bicubic")
    weights = torch.tensor(plain, dtype=torch.float64)
    torch.testing.assert_close(weights @ picture[0, 0] @ weights.T, expected[0, 0])

    smooth = cubic_matrix(side, cells, ratio=side / cells, antialias=True)
    expected = F.interpolate(
        picture, size=(cells, cells), mode="bicubic", antialias=True
    )
    weights = torch.tensor(smooth, dtype=torch.float64)
    torch.testing.assert_close(weights @ picture[0, 0] @ weights.T, expected[0, 0])


def test_features_have_the_grid_of_the_patches() -> None:
    backbone = create_backbone("dino_vit_tiny", taps=["norm", "blocks.0"])
    for count in (0, 2):
        for feature in backbone(pixels(70, 98, count)):
            assert feature.shape == (count, 64, 5, 7)


def test_a_patch_lies_where_it_is_in_the_picture() -> None:
    backbone = create_backbone("dino_vit_tiny", taps=["blocks.0"])
    picture = pixels(70, 98, 1)
    changed = picture.clone()
    changed[:, :, 14:28, 56:70] += 3  # patch (1, 4)
    [before], [after] = backbone(picture), backbone(changed)
    moved = (after - before).square().sum(dim=1)[0]  # (5, 7)
    assert divmod(int(moved.argmax()), 7) == (1, 4)


def test_the_tiny_network_is_the_same_each_time_and_says_what_it_is() -> None:
    first = create_backbone("dino_vit_tiny", taps=["stride14"])
    torch.manual_seed(5)
    second = create_backbone("dino_vit_tiny", taps=["stride14"])
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    assert first.weights is not None
    assert "for tests of the mechanism only" in first.weights.source


def test_the_keys_are_those_of_the_published_weights() -> None:
    own = set(random_state("dino_vit_tiny"))
    of_one_block = {
        key for key in own if not key.startswith(("blocks.1.", "blocks.2."))
    }
    assert of_one_block == PUBLISHED_KEYS
    assert "register_tokens" in random_state("dinov2_vits14_reg")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_gives_its_weights_and_a_cut_network_takes_what_it_needs(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = random_state("dino_vit_tiny")
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    whole = create_backbone(
        "dino_vit_tiny", taps=["blocks.1", "norm"], weights_file=path
    )
    cut = create_backbone("dino_vit_tiny", taps=["blocks.1"], weights_file=path)
    assert torch.equal(whole.state_dict()["cls_token"], state["cls_token"])
    assert not any(key.startswith(("blocks.2", "norm")) for key in cut.state_dict())
    picture = pixels(70, 70)
    assert torch.equal(cut(picture)[0], whole(picture)[0])
    assert whole.weights is not None
    assert whole.weights.source == f"file weights{suffix}"


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(random_state("dino_vit_tiny"), path)
    with pytest.raises(
        ConfigError, match=r"not hold the weights of dinov2_vits14: cls"
    ):
        create_backbone("dinov2_vits14", taps=["norm"], weights_file=path)

    torch.save({**random_state("dino_vit_tiny"), "head.weight": torch.zeros(2)}, path)
    with pytest.raises(ConfigError, match=r"head\.weight is unknown"):
        create_backbone("dino_vit_tiny", taps=["norm"], weights_file=path)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "dino_vit_tiny"])
def test_published_networks_ask_for_a_file_or_for_timm(name: str) -> None:
    with pytest.raises(ConfigError, match=r"as weights_file, or take .timm:vit_"):
        create_backbone(name, taps=["stride14"])


def test_a_size_that_cuts_patches_is_refused() -> None:
    backbone = create_backbone("dino_vit_tiny", taps=["stride14"])
    with pytest.raises(ConfigError, match=r"256 x 70 pixels.*to \[252, 70\]"):
        backbone(pixels(256, 70))


@pytest.mark.parametrize("name", ["dino_vit_tiny", "dinov2_vits14_reg"])
def test_onnxruntime_gives_the_same_features(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(random_state(name), path)
    backbone = create_backbone(name, taps=["norm"], weights_file=path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            backbone,
            (pixels(84, 70),),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    assert {node.domain for node in graph.graph.node} == {""}
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for count in (1, 3):
        picture = pixels(84, 70, count)
        feed = {session.get_inputs()[0].name: picture.numpy()}
        [found] = session.run(None, feed)
        assert relative(found, backbone(picture)[0]) < ONNX_TOLERANCE


@pytest.mark.timm
@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_features_equal_those_of_timm(name: str, tmp_path: Path) -> None:
    import timm

    variant = VARIANTS[name]
    torch.manual_seed(0)
    reference = timm.create_model(variant.timm_name, img_size=518).eval()
    for parameter in reference.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    state = reference.state_dict()
    if variant.registers:  # timm keeps the class token's place within the token
        state["register_tokens"] = state.pop("reg_token")
        no_place = torch.zeros(1, 1, variant.width)
        state["pos_embed"] = torch.cat([no_place, state["pos_embed"]], dim=1)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)

    picture = pixels(518, 518, 1)
    backbone = create_backbone(name, taps=["norm"], weights_file=path)
    with torch.inference_mode():
        [found] = backbone(picture)
        tokens = reference.forward_features(picture)[:, 1 + variant.registers :]
    expected = tokens.transpose(1, 2).reshape(1, variant.width, 37, 37)
    assert relative(found, expected) < TIMM_TOLERANCE
