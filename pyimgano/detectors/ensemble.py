"""An ensemble: the mean of several detectors' scores and maps, as one graph.

Members look at the part in different ways (other backbone, other statistics), so their
mistakes differ. Each member's scores and maps are divided by the spread of its scores
on normals that it was not fitted on: the median absolute deviation (MAD), which a few
odd pictures do not move (Rousseeuw & Croux 1993). The median itself is not subtracted:
that would shift the score of every picture by the same constant, change no decision,
and put typical scores at 0, where relative differences between engines mean nothing.

Members are fitted on features (`FeatureDetector`), not trained by gradient: their
spread then costs two further fits on halves of the normals. Members with the same
backbone, taps and model size share them, in the graph too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option
from pyimgano_runtime.errors import ConfigError

from .feature_detector import FeatureDetector
from .feature_set import FeatureSet
from .interface import Detector, FitContext

# The spread is at least this share of the median score: normals that all score the
# same (copies of one picture) must not make a member drown out the others.
LEAST_SPREAD: Final = 0.01
SMALLEST_SPREAD: Final = 1e-6

# On the finest grid: that of padim, with which it shares its features in "fast".
_FAST_PATCHCORE: Final[dict[str, Any]] = {
    "name": "patchcore",
    "preset": "fast",
    "options": {"grid": "finest", "sigma_px": 8.0},
}
DEFAULT_MEMBERS: Final[dict[str, Any]] = {
    "patchcore": {"name": "patchcore"},
    "patchcore_fast": _FAST_PATCHCORE,
    "padim": {
        "name": "padim",
        "options": {"backbone": "efficientnet_lite2"},
    },
}


def _default_members() -> dict[str, Any]:
    return {key: dict(value) for key, value in DEFAULT_MEMBERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """Hyper-parameters of the ensemble."""

    members: dict[str, Any] = option(
        _default_members,
        "the detectors: a name of your own -> {name, preset, options} as in `model`; "
        "each is fitted on features and has its own options",
    )

    def __post_init__(self) -> None:
        problems = [p for key in sorted(self.members) for p in self._problems(key)]
        if not self.members:
            problems = ["members: found none, expected at least one detector"]
        if problems:
            raise ValueError("; ".join(problems))
        # Every option of every member, presets resolved: what a checkpoint records.
        full = {key: self._complete(key) for key in sorted(self.members)}
        object.__setattr__(self, "members", full)

    def _complete(self, key: str) -> dict[str, Any]:
        options = dataclasses.asdict(self.member_config(key))
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
        return {"name": self.members[key]["name"], "options": plain}

    def _problems(self, key: str) -> list[str]:
        from . import detector_class

        member = self.members[key]
        place = f"members.{key}"
        if not key.isidentifier():
            return [f"{place}: expected a name of letters, digits and underscores"]
        if not isinstance(member, dict) or not isinstance(member.get("name"), str):
            return [f"{place}: expected {{name, preset, options}}, with the name"]
        unknown = sorted(set(member) - {"name", "preset", "options"})
        if unknown:
            return [f"{place}: unknown keys {', '.join(unknown)}"]
        try:
            cls = detector_class(member["name"], f"{place}.name")
            self.member_config(key)
        except ConfigError as error:
            return [str(error)]
        if not issubclass(cls, FeatureDetector) or cls.trains or cls is Ensemble:
            return [
                f'{place}.name: "{cls.name}" is trained by gradient or no detector of '
                "its own, expected one that is fitted on features, such as patchcore"
            ]
        return []

    def member_config(self, key: str) -> Any:
        """Give the checked hyper-parameters of a member.

        Raises:
            ConfigError: see `pyimgano.detectors.detector_config`.
        """
        from . import detector_class, detector_config

        member = self.members[key]
        return detector_config(
            detector_class(member["name"]),
            member.get("options", {}),
            f"members.{key}.options",
            preset=member.get("preset"),
        )


class Ensemble(FeatureDetector):
    """Mean of several detectors, each in units of its own spread on normals."""

    name = "ensemble"
    Config: ClassVar[type[Any]] = EnsembleConfig
    needs_weights = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {
            "members": {
                "padim": {"name": "padim"},
                "patchcore": _FAST_PATCHCORE,
            }
        },
    }

    config: EnsembleConfig

    def __init__(
        self, config: EnsembleConfig, *, members: Mapping[str, FeatureDetector]
    ) -> None:
        super().__init__(config)
        self.members = nn.ModuleDict(members)
        mapped = [m for m in members.values() if m.has_map]
        self.has_map = bool(mapped)  # type: ignore[misc]  # of these members
        modes = sorted({_geometry(member) for member in members.values()})
        if len(modes) > 1:
            raise ConfigError(
                f"members: found geometry {' and '.join(modes)}, expected one; "
                "set the same geometry for every member"
            )
        sizes = [size for m in mapped if (size := m.map_size()) is not None]
        self._map_size = max(sizes, key=lambda s: s[0] * s[1]) if sizes else None
        self.register_buffer("spread", torch.ones(len(members)))
        self.spread: Tensor  # (M,) MAD of each member's scores of held-out normals
        self._slots, self._shapes = self._layout()

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Give an unfitted ensemble; members with equal backbones share one."""
        return cls(config, members=_create_members(config, pretrained=True))

    @classmethod
    def from_state(cls, config: Any, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild a fitted ensemble; see `Detector.from_state`."""
        ensemble = cls(config, members=_create_members(config, pretrained=False))
        ensemble.take_state(tensors)
        return ensemble.eval()

    def blank(self) -> Self:
        """Give an unfitted twin that shares the backbones."""
        members = {key: member.blank() for key, member in self._members()}
        return type(self)(self.config, members=members)

    def used_backbones(self) -> list[Backbone]:
        """See `Detector.used_backbones`."""
        found = [b for _, member in self._members() for b in member.used_backbones()]
        return list({id(backbone): backbone for backbone in found}.values())

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, D, 1, 1): the members' features, one behind the other."""
        computed: dict[Any, Tensor] = {}
        for key, member in self._members():
            slot = self._slots[key]
            if slot not in computed:
                computed[slot] = member.features(images_u8).flatten(1)
        return torch.cat(list(computed.values()), dim=1)[:, :, None, None]

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Give score (N,) and map (N, map_h, map_w), in spreads of the members."""
        scores, maps = [], []
        for number, (key, member) in enumerate(self._members()):
            own = self._part(features, key)
            score, anomaly_map = member.score_features(own)
            scores.append(score / self.spread[number])
            if anomaly_map is not None:
                maps.append(self._resized(anomaly_map) / self.spread[number])
        score = torch.stack(scores).mean(dim=0)
        if not maps:
            return score, None
        anomaly_map = torch.stack(maps).mean(dim=0)
        if len(maps) < len(scores):  # a member without a map has no say in it
            anomaly_map = anomaly_map * (len(maps) / len(scores))
        return score, anomaly_map

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Fit each member, and its spread on halves that it was not fitted on."""
        spread = []
        for key, member in self._members():
            _, start, end = self._slots[key]
            own = features.columns(start, end, self._shapes[key])
            spread.append(_spread(member, own, context))
            member.fit_features(own, context=context)
        self.spread = torch.tensor(spread).to(context.device)
        return self

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """Give the steps of every member, each with its `member`."""
        return [
            step | {"member": key}
            for key, member in self._members()
            for step in member.preprocess_steps()
        ]

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """Give the steps of every member, then the mean."""
        own = [
            step | {"member": key}
            for key, member in self._members()
            for step in member.postprocess_steps()
        ]
        mean = {"step": "mean", "where": "graph", "spread": self.spread.tolist()}
        return [*own, mean]

    @property
    def map_mode(self) -> str:
        """See `Detector.map_mode`; the members agree on it."""
        return _geometry(next(iter(self.members.values())))  # type: ignore[arg-type]

    def map_size(self) -> tuple[int, int] | None:
        """See `Detector.map_size`."""
        return self._map_size

    def hyper_parameters(self) -> dict[str, Any]:
        """Give the members with every one of their hyper-parameters."""
        members = {
            key: {"name": member.name, "options": member.hyper_parameters()}
            for key, member in self._members()
        }
        return {"members": members}

    def _members(self) -> list[tuple[str, FeatureDetector]]:
        # In order of name: the members of a config that was read from a file are too.
        found = [(key, self.members[key]) for key in sorted(self.members)]
        return found  # type: ignore[return-value]

    @torch.no_grad()
    def _layout(self) -> tuple[dict[str, Any], dict[str, tuple[int, int, int]]]:
        """Say where each member's features stand: (whose, start, end), and shapes."""
        slots: dict[str, Any] = {}
        shapes: dict[str, tuple[int, int, int]] = {}
        known: dict[Any, Any] = {}
        start = 0
        for key, member in self._members():
            device = next(member.buffers()).device
            empty = torch.zeros(1, 8, 8, 3, dtype=torch.uint8, device=device)
            _, channels, height, width = member.features(empty).shape
            shapes[key] = (channels, height, width)
            shared = member.features_key()
            if shared is None or shared not in known:
                slot = (key, start, start + channels * height * width)
                start = slot[2]
                known[key if shared is None else shared] = slot
            slots[key] = slot if shared is None else known[shared]
        return slots, shapes

    def _part(self, features: Tensor, key: str) -> Tensor:
        _, start, end = self._slots[key]
        return features[:, start:end].reshape(-1, *self._shapes[key])

    def _resized(self, anomaly_map: Tensor) -> Tensor:
        if anomaly_map.shape[-2:] == self._map_size:
            return anomaly_map
        return F.interpolate(
            anomaly_map.unsqueeze(1),
            size=self._map_size,
            mode="bilinear",
            align_corners=False,
        ).squeeze(1)


def _create_members(config: EnsembleConfig, *, pretrained: bool) -> dict[str, Any]:
    from . import detector_class

    shared: dict[Any, Backbone] = {}
    members = {}
    for key in sorted(config.members):
        cls = detector_class(config.members[key]["name"])
        own = config.member_config(key)
        member: Detector = cls.unfitted(own, pretrained=pretrained, shared=shared)
        members[key] = member
    return members


def _geometry(member: Detector) -> str:
    return str(getattr(member.config, "geometry", "stretch"))


def _spread(
    member: FeatureDetector, features: FeatureSet, context: FitContext
) -> float:
    """Give the MAD of the scores of normals, each by a model that never saw it.

    Copies and tiles of one part go into one half together. One normal has no spread;
    the member then keeps its own unit.
    """
    distinct, number = np.unique(features.parts, return_inverse=True)
    if len(distinct) < 2:
        return 1.0
    scores = []
    for half in (0, 1):
        in_half = number % 2 == half
        twin = member.blank().to(context.device).eval()
        twin.fit_features(features.subset(np.flatnonzero(~in_half)), context=context)
        held_out = features.subset(np.flatnonzero(in_half))
        scores += [
            twin.score_features(batch.to(context.device))[0].cpu()
            for batch in held_out.batches(8)
        ]
    found = torch.cat(scores).double()
    median = found.median()
    spread = (found - median).abs().median()
    return max(float(spread), LEAST_SPREAD * float(median.abs()), SMALLEST_SPREAD)
