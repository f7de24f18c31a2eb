"""Replays a bundle's goldens on this machine: proof that the same scores come out."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .decode import decode_bytes, decoder_name
from .engine import ChainEngine
from .errors import BundleError, ImageError, ParityError
from .infer_config import Golden
from .predictor import Predictor
from .providers import CPU, ProviderInUse
from .thresholds import is_anomaly

# numpy's own reader evaluates the header as Python text; ours only compares it.
_NPY_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,3})', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]{0,60})\), \} {0,128}\n",
    re.DOTALL,
)
TINY: Final = float(np.finfo(np.float32).tiny)
# 1.1: "signature"; 1.2: "map_abs_diff"; 1.3: "provider", "operators", "score_tolerance"
CHECK_SCHEMA_VERSION: Final = "1.3"


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How one golden came out here."""

    image: str
    category: str
    decoder: str  # "same", "differs" (pixels unlike those at export), "missing"
    expected_score: float
    score: float | None
    score_rel_diff: float | None
    map_abs_diff: float | None
    map_diff_of_range: float | None
    label_same: bool | None
    agrees: bool | None  # None: could not be replayed, or only the decoder differs

    def to_json(self) -> dict[str, Any]:
        """Give the result as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The verdict over all goldens of a bundle."""

    bundle: str
    bundle_sha256: str
    engine: str
    provider: ProviderInUse
    score_tolerance: float  # the relative difference of scores that was allowed
    decoder: str
    categories: tuple[str, ...]
    results: tuple[GoldenResult, ...]
    unlisted: tuple[str, ...]
    signature: str | None  # file name of one beside the bundle; not verified here

    @property
    def ok(self) -> bool:
        """Whether no golden disagrees and every category was proven by one."""
        disagrees = any(r.agrees is False for r in self.results)
        return not disagrees and not self.unproven

    @property
    def unproven(self) -> tuple[str, ...]:
        """Categories of which no golden could be judged here."""
        judged = {r.category for r in self.results if r.agrees is not None}
        return tuple(name for name in self.categories if name not in judged)

    def to_json(self) -> dict[str, Any]:
        """Give the report as a JSON object."""
        return {
            "schema_version": CHECK_SCHEMA_VERSION,
            "bundle": self.bundle,
            "bundle_sha256": self.bundle_sha256,
            "engine": self.engine,
            "provider": self.provider.name,
            "operators": self.provider.operators,
            "score_tolerance": self.score_tolerance,
            "decoder": self.decoder,
            "ok": self.ok,
            "unproven": list(self.unproven),
            "results": [result.to_json() for result in self.results],
            "unlisted": list(self.unlisted),
            "signature": self.signature,
        }


def check_bundle(
    bundle: Bundle,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> CheckReport:
    """Verify every file's hash, then compare each golden with what torch gave.

    Scores are held to the strict tolerance of the bundle on the CPU, and to the one
    that it states for other kernels on any other provider.

    Args:
        threads: onnxruntime threads; default: the cores this process may use.
        providers: as for `Predictor.open`.

    Raises:
        BundleError: a file is missing or was changed, or the model is refused.
        ConfigError: a provider is not there or does not compute here.
    """
    bundle.verify_files()
    results, engine, tolerance = [], "", 0.0
    provider = ProviderInUse(CPU, None)
    for name in bundle.config.categories:
        predictor = Predictor.open(
            bundle, category=name, threads=threads, providers=providers
        )
        assert isinstance(predictor.engine, ChainEngine)
        engine, provider = predictor.engine.name, predictor.engine.provider
        tolerance = score_tolerance(bundle, provider.name)
        goldens = [g for g in bundle.config.parity.goldens if g.category == name]
        results += [_replay(bundle, predictor, g, tolerance) for g in goldens]
    return CheckReport(
        bundle=str(bundle.root),
        bundle_sha256=bundle.sha256,
        engine=engine,
        provider=provider,
        score_tolerance=tolerance,
        decoder=decoder_name(),
        categories=tuple(bundle.config.categories),
        results=tuple(results),
        unlisted=tuple(bundle.unlisted_files()),
        signature=bundle.signature.name if bundle.signature else None,
    )


def score_tolerance(bundle: Bundle, provider: str) -> float:
    """Give the relative difference that a golden's score may have on a provider."""
    kind = "score_rel" if provider == CPU else "score_rel_other_kernels"
    return bundle.config.parity.tolerances[kind]


def _replay(
    bundle: Bundle, predictor: Predictor, golden: Golden, tolerance: float
) -> GoldenResult:
    try:
        image = decode_bytes(
            bundle.read(golden.image), predictor.rules, name=golden.image
        )
    except ImageError as error:
        if error.code != "DECODER_MISSING":
            raise BundleError(
                f"{bundle.root}: the bundle's own rules refuse its golden {error}"
            ) from error
        return _not_replayed(golden, "missing")
    except MemoryError as error:
        raise BundleError(
            f"{bundle.root / golden.image}: the picture needs more memory than there "
            "is; allow more by --max-memory or export the bundle again"
        ) from error
    pixels = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    decoder = "same" if pixels == golden.pixels_sha256 else "differs"
    try:
        prediction = predictor.predict(image)
    except ImageError as error:
        raise ParityError(f"{bundle.root / golden.image}: {error}") from error

    tolerances = bundle.config.parity.tolerances
    score_diff = relative_difference(prediction.score, golden.score)
    map_abs_diff = map_diff = None
    if golden.map is not None and prediction.anomaly_map is not None:
        expected = _read_map(
            bundle.read(golden.map),
            prediction.anomaly_map.shape,
            str(bundle.root / golden.map),
        )
        map_diff = difference_of_range(prediction.anomaly_map, expected)
        map_abs_diff = float(np.max(np.abs(prediction.anomaly_map - expected)))
    label_same = is_anomaly(prediction.score, predictor.threshold) == is_anomaly(
        golden.score, predictor.threshold
    )
    agrees: bool | None = (
        score_diff <= tolerance
        and (map_diff is None or map_diff <= tolerances["map_of_range"])
        and label_same
    )
    return GoldenResult(
        image=golden.image,
        category=golden.category,
        decoder=decoder,
        expected_score=golden.score,
        score=prediction.score,
        score_rel_diff=score_diff,
        map_abs_diff=map_abs_diff,
        map_diff_of_range=map_diff,
        label_same=label_same,
        # Other pixels give another score: that says nothing about the model.
        agrees=agrees if decoder == "same" else None,
    )


def _read_map(
    data: bytes, shape: tuple[int, ...], where: str
) -> npt.NDArray[np.float32]:
    """Give a golden's map: a float32 .npy file of this shape and nothing else."""
    match = _NPY_HEADER.match(data)
    if match is None:
        raise BundleError(
            f"{where}: is no plain .npy file of version 1.0; export the bundle again"
        )
    dtype, fortran, sides = (part.decode("ascii") for part in match.groups())
    found = f"{dtype} of shape ({sides})"
    plain = (dtype, fortran) == ("<f4", "False")
    if not plain or [int(side) for side in re.findall(r"\d+", sides)] != list(shape):
        raise BundleError(
            f"{where}: holds {found}, the model gives float32 of shape {shape}; "
            "export the bundle again"
        )
    # The length in the file is not asked: the header ends where its text does.
    if len(data) - match.end() != 4 * math.prod(shape):
        raise BundleError(
            f"{where}: holds {len(data) - match.end()} bytes of numbers, expected "
            f"{4 * math.prod(shape)} for {found}; export the bundle again"
        )
    values = np.frombuffer(data, "<f4", offset=match.end()).reshape(shape)
    if not np.isfinite(values).all():
        raise BundleError(
            f"{where}: holds NaN or infinity, expected finite numbers; export the "
            "bundle again"
        )
    return values


def _not_replayed(golden: Golden, decoder: str) -> GoldenResult:
    return GoldenResult(
        image=golden.image,
        category=golden.category,
        decoder=decoder,
        expected_score=golden.score,
        score=None,
        score_rel_diff=None,
        map_abs_diff=None,
        map_diff_of_range=None,
        label_same=None,
        agrees=None,
    )


def relative_difference(found: float, expected: float) -> float:
    """|found - expected| / max(|found|, |expected|); 0 where both are 0."""
    scale = max(abs(found), abs(expected), TINY)
    return abs(found - expected) / scale


def difference_of_range(found: Any, expected: Any) -> float:
    """Largest |difference| of two maps as a share of the expected map's range."""
    # In float64: two float32 may be further apart than float32 can say.
    found, expected = (np.asarray(side, np.float64) for side in (found, expected))
    largest = float(np.max(np.abs(found - expected), initial=0.0))
    reach = float(expected.max() - expected.min()) if expected.size else 0.0
    scale = max(reach, float(np.max(np.abs(expected), initial=0.0)) * 1e-3, TINY)
    return largest / scale
