"""Any backbone of timm (PyTorch Image Models), by the name "timm:<model>".

timm is optional and imported only when such a name is used: its torchvision has to
match the torch installed. Its weights come from the Hugging Face hub, or from a local
file for machines without internet.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self

from torch import Tensor, nn

from pyimgano.backbones.interface import (
    Backbone,
    FeatureTap,
    WeightsInfo,
    did_you_mean,
    parse_state_dict,
    read_weights,
    select_taps,
)
from pyimgano_runtime.errors import ConfigError

HUB_FILE: Final = "model.safetensors"


class TimmBackbone(Backbone):
    """A timm network with `features_only=True`; its taps have timm's module names.

    Models of one fixed input size take any multiple of their patch size where timm
    can resample their position embedding (vision transformers), else that size alone.

    Args:
        name: "timm:<model>", for example "timm:resnet18" or "timm:resnet18.a1_in1k".
        taps: the taps to return, in this order.
        network: the feature extractor that timm built, one output per tap in network
            order.
    """

    def __init__(
        self, name: str, *, taps: tuple[FeatureTap, ...], network: nn.Module
    ) -> None:
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        red, green, blue = (255.0 * value for value in config["mean"])
        red_std, green_std, blue_std = (255.0 * value for value in config["std"])
        super().__init__(
            name=name,
            taps=taps,
            pixel_mean=(red, green, blue),
            pixel_std=(red_std, green_std, blue_std),
        )
        self._network = network
        self._channels_last_out = getattr(network, "output_fmt", None) == "NHWC"

        in_network_order = [info["module"] for info in _chosen_taps(network)]
        self._order = [in_network_order.index(tap.name) for tap in taps]
        self.eval().requires_grad_(False)

    @classmethod
    def available_taps(cls, name: str) -> tuple[FeatureTap, ...]:
        """timm's feature points; the network is built once, without weights.

        Raises:
            ConfigError: timm is not installed, or has no such model.
        """
        network = _build(name, pretrained=False, features_only=True)
        return tuple(
            FeatureTap(info["module"], info["reduction"], info["num_chs"])
            for info in network.feature_info.info  # type: ignore[union-attr]
        )

    @classmethod
    def create(
        cls,
        name: str,
        *,
        taps: Sequence[str],
        weights_file: Path | None,
        pretrained: bool,
    ) -> Self:
        """Build the network; see `pyimgano.backbones.create_backbone`.

        Args:
            name: "timm:<model>".
            taps: names or strides, see `select_taps`.
            weights_file: safetensors or a torch state dict with timm's keys; None
                downloads from the hub, or takes the file from its cache.
            pretrained: False leaves random weights, for `load_state_dict`.

        Raises:
            ConfigError: timm is missing, no such model or tap, no weights to be had, or
                weights of another model.
        """
        available = cls.available_taps(name)
        selected = select_taps(name, available, taps)
        indices = sorted(available.index(tap) for tap in selected)
        if not pretrained:
            network = _build(
                name, pretrained=False, features_only=True, out_indices=indices
            )
            return cls(name, taps=selected, network=network)

        path = weights_file or _download(name)
        content, sha256 = read_weights(path)
        state = parse_state_dict(content, path)
        network = _build_with_weights(name, state, path, indices)

        backbone = cls(name, taps=selected, network=network)
        timm, model = _import_timm(), _model_name(name)
        config = timm.get_pretrained_cfg(model)
        backbone.weights = WeightsInfo(
            source=f"file {path.name}" if weights_file else f"hub {config.hf_hub_id}",
            licence="unknown" if weights_file else config.license or "unknown",
            sha256=sha256,
            package="timm",
            package_version=timm.__version__,
        )
        return backbone

    def forward(self, pixels: Tensor) -> list[Tensor]:
        features = self._network(pixels)  # network order, (N, C, h, w) or (N, h, w, C)
        if self._channels_last_out:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return [features[index] for index in self._order]


def _chosen_taps(network: nn.Module) -> list[dict[str, Any]]:
    """timm's description of each output of a `features_only` network."""
    chosen: list[dict[str, Any]] = network.feature_info.get_dicts()  # type: ignore[union-attr, operator]
    return chosen


def _model_name(name: str) -> str:
    return name.removeprefix("timm:")


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as cause:
        if cause.name == "timm":
            raise ConfigError(
                'backbones named "timm:<model>" need timm: pip install timm'
            ) from cause
        raise ConfigError(
            f"timm is installed, but lacks {cause.name}: pip install {cause.name}"
        ) from cause
    except (ImportError, RuntimeError) as cause:
        # A torchvision built for another torch: "operator torchvision::nms does not
        # exist", a RuntimeError.
        raise ConfigError(
            f"timm cannot be imported ({cause}); install a torchvision that was built "
            "for the torch installed here"
        ) from cause


def _build(name: str, **options: Any) -> nn.Module:
    """`timm.create_model`, of free input size where the model allows it."""
    timm, model = _import_timm(), _model_name(name)
    if not timm.is_model(model):
        raise ConfigError(
            f'backbone "{name}": timm {timm.__version__} has no model "{model}"'
            f"{did_you_mean(model, timm.list_models())}; timm.list_models() lists them"
        )
    try:
        if timm.get_pretrained_cfg(model).fixed_input_size:
            try:
                options_any_size = {"dynamic_img_size": True, **options}
                return timm.create_model(model, **options_any_size)  # type: ignore[no-any-return]
            except TypeError:  # not a vision transformer: no such option
                pass
        return timm.create_model(model, **options)  # type: ignore[no-any-return]
    except (RuntimeError, AttributeError, NotImplementedError) as cause:
        # Weights of another model or tag, or a network without feature points.
        raise ConfigError(
            f'backbone "{name}": timm {timm.__version__} refuses it: {cause}'
        ) from cause


def _build_with_weights(
    name: str, state: dict[str, Tensor], path: Path, indices: list[int]
) -> nn.Module:
    """The feature extractor with the weights `state`, all of them or an error.

    `features_only` loads what fits and leaves the rest random without a word. So the
    whole network is loaded first, strictly, without its classifier.
    """
    timm = _import_timm()
    classifier = timm.get_pretrained_cfg(_model_name(name)).classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    body = {
        key: value
        for key, value in state.items()
        if key.rpartition(".")[0] not in heads
    }
    overlay = {"state_dict": body, "num_classes": 0, "label_offset": 0}
    try:
        _build(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except ConfigError as cause:
        raise ConfigError(
            f"{path}: does not hold the weights of {name}; expected the file that the "
            f"hub has for this model. {cause}"
        ) from cause

    network = _build(
        name,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        features_only=True,
        out_indices=indices,
    )
    network.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]
    return network


def _download(name: str) -> Path:
    """The model's weights file, from the hub or its cache."""
    config = _import_timm().get_pretrained_cfg(_model_name(name))
    offline = (
        "to work offline give the file as weights_file, or copy the cache of a machine "
        "that has it and set HF_HOME to it"
    )
    if not config.hf_hub_id:
        raise ConfigError(
            f'backbone "{name}": the hub has no weights for it; {offline}'
        )
    hub = importlib.import_module("huggingface_hub")  # timm depends on it
    file_name = config.hf_hub_filename or HUB_FILE
    try:
        return Path(hub.hf_hub_download(config.hf_hub_id, file_name))
    except (OSError, hub.errors.HfHubHTTPError) as cause:
        raise ConfigError(
            f'backbone "{name}": {file_name} of {config.hf_hub_id} cannot be '
            f"downloaded ({type(cause).__name__}); {offline}"
        ) from cause
