"""The ensemble: members in units of their own spread, and their mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from conftest import Exported
from pyimgano.datasets.generated_parts import draw_part
from pyimgano.detectors import create_detector
from pyimgano.detectors.ensemble import LEAST_SPREAD, Ensemble, _spread
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano_runtime.errors import ConfigError

PIXELS = {"name": "pixel_stats", "options": {"image_size": [48, 48]}}
WIDE = {"name": "pixel_stats", "options": {"image_size": [32, 64]}}
BANK = {
    "name": "patchcore",
    "preset": "fast",
    "options": {"image_size": [64, 64], "bank_size": 50, "grid": "finest"},
}
POSITION = {"name": "padim", "options": {"image_size": [64, 64]}}


class Pictures:
    """Generated parts as TrainingData."""

    def __init__(self, count: int) -> None:
        self.images = torch.stack(
            [
                torch.from_numpy(
                    draw_part(
                        "bracket", np.random.default_rng([1, index]), size=(64, 64)
                    ).image_u8
                )
                for index in range(count)
            ]
        )

    @property
    def n_normals(self) -> int:
        return len(self.images)

    def normals(self) -> Iterator[torch.Tensor]:
        yield from self.images.split(4)

    def tuning_normals(self) -> Iterator[torch.Tensor]:
        return iter(())

    def defects(self) -> Iterator[Any]:
        return iter(())


def context_in(folder: Path) -> FitContext:
    return FitContext(
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        workspace=folder,
        progress=lambda *_: None,
    )


def fitted(members: dict[str, Any], folder: Path, count: int = 12) -> Ensemble:
    context = context_in(folder)
    ensemble = create_detector("ensemble", {"members": members})
    made: Ensemble = ensemble.fit(Pictures(count), context=context).eval()
    return made


@torch.inference_mode()
def test_the_score_is_the_mean_of_members_in_their_own_spread(tmp_path: Path) -> None:
    ensemble = fitted({"a": PIXELS, "b": BANK}, tmp_path)
    images = Pictures(3).images
    score, _ = ensemble(images)
    alone = [
        ensemble.members[key](images)[0] / ensemble.spread[number]
        for number, key in enumerate(("a", "b"))
    ]
    torch.testing.assert_close(score, (alone[0] + alone[1]) / 2)


@torch.inference_mode()
def test_the_spread_is_the_mad_of_scores_by_models_that_never_saw_them(
    tmp_path: Path,
) -> None:
    ensemble = fitted({"a": PIXELS}, tmp_path)
    images = Pictures(12).images
    scores = torch.empty(12)
    for half in (0, 1):
        chosen = torch.arange(12) % 2 == half
        rest = Pictures(12)
        rest.images = images[~chosen]
        context = context_in(tmp_path)
        other = create_detector(PIXELS["name"], PIXELS["options"])
        other.fit(rest, context=context)
        scores[chosen] = other(images[chosen])[0]
    spread = (scores - scores.median()).abs().median()
    torch.testing.assert_close(ensemble.spread[0], spread)


def test_equal_pictures_do_not_make_a_member_drown_the_others(tmp_path: Path) -> None:
    pictures = Pictures(1)
    pictures.images = pictures.images.expand(8, -1, -1, -1).clone()
    context = context_in(tmp_path)
    ensemble = create_detector("ensemble", {"members": {"a": PIXELS}})
    ensemble.fit(pictures, context=context)
    with torch.inference_mode():
        member, _ = ensemble.members["a"](pictures.images[:1])
    assert float(ensemble.spread[0]) >= LEAST_SPREAD * float(member[0]) * 0.99


@torch.inference_mode()
def test_maps_of_other_sizes_come_to_the_largest(tmp_path: Path) -> None:
    ensemble = fitted({"a": PIXELS, "b": BANK}, tmp_path)
    _, maps = ensemble(Pictures(2).images)
    assert maps is not None
    assert maps.shape == (2, 64, 64)


def test_members_with_equal_backbones_share_one(tmp_path: Path) -> None:
    ensemble = fitted({"bank": BANK, "position": POSITION}, tmp_path)
    assert len(ensemble.used_backbones()) == 1
    channels, height, width = ensemble._shapes["bank"]
    features = ensemble.features(Pictures(1).images)
    assert features.shape[1] == channels * height * width  # once, not twice


def test_the_graph_holds_a_shared_backbone_once(exported: Any) -> None:
    """Two members on one backbone cost its convolutions once."""

    def convolutions(made: Exported) -> int:
        model = onnx.load(made.bundle / "models" / "bracket.onnx")
        backbone = [n for n in model.graph.node if n.op_type == "Conv"]
        return len({tuple(node.input[1:2]) for node in backbone})

    alone, both = exported("patchcore"), exported("ensemble")
    # Smoothing differs per member: a few more, far from twice as many.
    assert convolutions(both) < convolutions(alone) + 12


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "found none"),
        ({"a b": PIXELS}, "letters, digits"),
        ({"a": "padim"}, "expected {name, preset, options}"),
        ({"a": {"name": "padin"}}, 'did you mean "padim"'),
        ({"a": {"name": "padim", "option": {}}}, "unknown keys option"),
        ({"a": {"name": "padim", "options": {"rang": 3}}}, 'did you mean "rank"'),
        ({"a": {"name": "supersimplenet"}}, "trained by gradient"),
        ({"a": {"name": "ensemble"}}, "no detector of its own"),
    ],
)
def test_members_that_cannot_be_are_refused(members: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create_detector("ensemble", {"members": members})


def test_members_of_two_geometries_are_refused() -> None:
    boxed = {
        "name": "pixel_stats",
        "options": {"image_size": [48, 48], "geometry": "stretch"},
    }
    with pytest.raises(ConfigError, match="letterbox and stretch, expected one"):
        create_detector("ensemble", {"members": {"a": PIXELS, "b": boxed}})


def test_the_order_in_which_members_are_written_changes_nothing(tmp_path: Path) -> None:
    one = fitted({"a": PIXELS, "b": WIDE}, tmp_path)
    other = fitted({"b": WIDE, "a": PIXELS}, tmp_path)
    images = Pictures(2).images
    assert torch.equal(one(images)[0], other(images)[0])


def test_copies_of_one_part_go_into_one_half(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    # Without the parts, every copy is scored by a bank that holds its twin.
    torch.manual_seed(0)
    member = create_detector("patchcore", {"backbone": "efficientnet_lite0",
        "image_size": [64, 64], "bank_size": 500, "sigma_px": 0.0})  # fmt: skip
    shape = member.deep_features.shape_of(member.backbone)
    once = torch.randn(6, *shape)
    values = once.repeat_interleave(2, dim=0).numpy()
    apart = FeatureSet(values, np.arange(12))
    together = apart.with_parts(np.arange(6).repeat(2))
    assert _spread(member, together, context) == pytest.approx(
        _spread(member, FeatureSet(once.numpy(), np.arange(6)), context), rel=1e-4
    )
    assert together.subset([1, 2]).parts.tolist() == [0, 1]
    one_part = apart.with_parts(np.zeros(12, np.int64))
    assert _spread(member, one_part, context) == 1.0
