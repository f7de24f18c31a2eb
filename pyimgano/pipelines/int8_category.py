"""One category of a run in 8 bits: its ranges, its thresholds, and what it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyimgano_exporters.int8_graph import Int8Graph
from pyimgano_exporters.parity import ParityMeter
from pyimgano_exporters.quantize import MAX_IMAGES, as_the_graph_sees
from pyimgano_runtime.calibration import fixed_thresholds
from pyimgano_runtime.errors import ParityError
from pyimgano_runtime.infer_config import Calibration, InputRules, Thresholds
from pyimgano_runtime.predictor import Predictor

from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..detectors.interface import Detector, FitContext, Progress
from ..workbench.artifacts import Run
from ..workbench.category_thresholds import set_thresholds
from ..workbench.config import WorkbenchConfig
from ..workbench.evaluating import evaluate_test
from ..workbench.fitting import CategoryFitter, held_out_plan
from ..workbench.labelled_rows import Labelled
from ..workbench.run_document import training_facts
from ..workbench.runner import category_settings

Image = npt.NDArray[np.uint8]

MAX_AUROC_FALL: Final = 0.005
ROUNDING: Final = 1e-9  # of the difference of two numbers
SET_BY: Final = "pyimgano bundle export --precision int8"


@dataclass(frozen=True, slots=True)
class Int8Category:
    """What turns a trained category into one in 8 bits."""

    run: Run
    config: WorkbenchConfig
    rules: InputRules
    labelled: Labelled  # for method "best_f1"
    accept_quality_loss: bool
    progress: Progress
    split: CategorySplit
    detector: Detector

    @property
    def calibrates_on_features(self) -> bool:
        """Whether thresholds come out of fold."""
        plan = held_out_plan(self.config, self.split, self.detector)
        return plan.source == "kfold_pooled"

    def ranges(self) -> Iterable[Image]:
        """Give normals of split val, else of train, as the graph sees them."""
        rows = self._range_rows()
        images = read_ahead(rows, self.rules)
        return as_the_graph_sees(images, self.config.tiles)

    def _range_rows(self) -> list[ManifestRow]:
        rows = self.split.val or self.split.train_normals()
        places = np.linspace(0, len(rows) - 1, min(len(rows), MAX_IMAGES))
        return [rows[place] for place in places.round().astype(int)]

    def calibrate(self, graph: Int8Graph) -> tuple[Thresholds, Calibration]:
        """Set the thresholds again, by the method and the pictures of the training."""
        with tempfile.TemporaryDirectory(prefix="pyimgano-int8-") as folder:
            fitter = self._fitter(Path(folder))
            plan = held_out_plan(self.config, self.split, self.detector)
            scorer = self._unjudged(graph)
            features = None if graph.features is None else _of_tensors(graph.features)
            held_out = fitter.score_again(self.detector, scorer, features)
            labelled = self.labelled.get(self.split.category, ())
            return set_thresholds(
                self.config.calibration,
                held_out,
                plan.rows,
                labelled,
                lambda: fitter.score(scorer, labelled, "labelled_manifest"),
                by=SET_BY,
                at=self.run.report["finished"],  # the same run gives the same bytes
            )

    def judge(
        self,
        graph: Int8Graph,
        thresholds: Thresholds,
        calibration: Calibration,
        meter: ParityMeter,
    ) -> dict[str, Any]:
        """Give what the document says of the training, with the metrics in 8 bits.

        Raises:
            ParityError: 8 bits cost too much, and nobody accepted that.
        """
        name = self.split.category
        trained = self.run.report["categories"][name]
        predictor = self._predictor(graph, thresholds, calibration)
        tested = evaluate_test(self.config, self.split, predictor, self._told)
        facts = training_facts(trained | tested.facts(thresholds), self.detector)
        before, after = (r.get("image_auroc") for r in (trained, tested.metrics))
        problems = require(
            *(name, before, after, meter), accept=self.accept_quality_loss
        )
        return facts | {
            "int8": {
                "ranges_from": "val" if self.split.val else "train",
                "range_images": len(self._range_rows()),
                "image_auroc_fp32": before,
                "image_threshold_fp32": trained["image_threshold"],
                "label_flips_allowed": meter.allowed_int8_flips,
                "accepted_quality_loss": bool(problems),
            }
        }

    def _fitter(self, workspace: Path) -> CategoryFitter:
        context = FitContext(
            generator=torch.Generator().manual_seed(self.config.seed),
            device=torch.device("cpu"),  # where the graph runs, whatever trained
            workspace=workspace,
            progress=self._told,
            memory_budget=self.config.memory_budget_mb * 1024**2,
        )
        return CategoryFitter(self.config, self.split, self.rules, context)

    def _unjudged(self, graph: Int8Graph) -> Predictor:
        """Give what scores pictures by the graph; it has no threshold."""
        return self._predictor(
            graph, *fixed_thresholds(0.0, None, set_by="", set_at="")
        )

    def _predictor(
        self, graph: Int8Graph, thresholds: Thresholds, calibration: Calibration
    ) -> Predictor:
        name = self.split.category
        settings = category_settings(
            *(self.detector, name, thresholds, calibration),
            tiling=self.config.tiles,
            defects=self.config.defects,
        )
        return Predictor(name, settings, self.rules, graph.engine)

    def _told(self, step: str, done: int, total: int) -> None:
        self.progress(f"{self.split.category} in int8: {step}", done, total)


def _of_tensors(
    features: Callable[[Image], npt.NDArray[np.float32]],
) -> Callable[[Tensor], Tensor]:
    """Give the features of the graph as a detector gives its own."""
    return lambda images_u8: torch.from_numpy(features(images_u8.cpu().numpy()))


def require(
    category: str,
    before: float | None,
    after: float | None,
    meter: ParityMeter,
    *,
    accept: bool,
) -> list[str]:
    """Refuse a graph in 8 bits that judges worse than the one in float32.

    Args:
        before: image AUROC in float32; None: not measured.
        after: image AUROC in 8 bits.
        meter: labels of both.
        accept: refuse nothing.

    Returns:
        What was accepted; empty where it judges as well.

    Raises:
        ParityError: image AUROC falls by more than 0.005 or was not measured, or more
            than 2 % of the labels differ.
    """
    problems = []
    if before is None or after is None:
        problems.append(
            "the test pictures do not hold both normals and anomalies: nothing tells "
            "what image AUROC it costs"
        )
    elif not before - after <= MAX_AUROC_FALL + ROUNDING:
        problems.append(
            f"image AUROC is {after:.4f}, {before:.4f} in fp32; it may fall by "
            f"{MAX_AUROC_FALL}"
        )
    if len(meter.flipped) > meter.allowed_int8_flips:
        problems.append(
            f"{len(meter.flipped)} labels of {meter.n_images} {meter.images} pictures "
            f"differ from fp32, at most {meter.allowed_int8_flips} may: "
            + ", ".join(meter.flipped[:5])
            + (", ..." if len(meter.flipped) > 5 else "")
        )
    if problems and not accept:
        raise ParityError(
            f"{category}: int8 costs too much: {'; '.join(problems)}. No bundle was "
            "written: export in fp32, or pass --accept-quality-loss to take it so"
        )
    return problems
