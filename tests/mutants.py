"""Breaks the code on purpose, one named break at a time, and shows that a test fails.

    python tests/mutants.py            all of them
    python tests/mutants.py rank fold  those whose name holds one of the words

Every break is made in a temporary copy of the tree. Exit 1 if a break survives, if it
cannot be made any more, or if the tests fail without it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
COPIED: Final = (
    *("pyimgano", "exporters", "runtime", "tests", "docs", "examples"),
    "pyproject.toml",
)
WORKERS: Final = 2
TIMEOUT_S: Final = 300
TESTS_FAILED: Final = 1  # pytest's exit code; 2 to 5 are no finding of a test


@dataclass(frozen=True, slots=True)
class Mutant:
    """One break: a text that stands once in a file, and what replaces it."""

    name: str
    file: str
    old: str
    new: str
    tests: str  # a test file
    only: str = ""  # pytest -k, where the file takes long


RUNTIME: Final = "runtime/src/pyimgano_runtime"
EXPORTERS: Final = "exporters/pyimgano_exporters"
CONFORMAL: Final = "tests/test_calibration_conformal.py"
TRAIN: Final = "tests/test_workbench_train.py"
EXPORT: Final = "tests/test_bundle_export.py"
ACCEPT: Final = "tests/test_bundle_accept.py"
SUITE: Final = "tests/test_benchmark_suite.py"
PREFLIGHT: Final = "tests/test_workbench_preflight_manifest.py"

MUTANTS: Final = (
    Mutant(
        "the pixel threshold is set on what the ROI leaves out",
        "pyimgano/calibration.py",
        "values = judged(picture, anomaly_map)",
        "values = anomaly_map",
        "tests/test_regions_chain.py",
        "what_is_judged",
    ),
    Mutant(
        "the label follows the score whatever the policy",
        f"{RUNTIME}/regions.py",
        '"any_region": n_regions > 0,',
        '"any_region": by_score,',
        "tests/test_regions_find.py",
        "policy",
    ),
    Mutant(
        "regions beside a letterboxed picture count",
        f"{RUNTIME}/map_grid.py",
        "(y >= border) & (y <= 1 - border)",
        "(y >= border - 1) & (y <= 2 - border)",
        "tests/test_regions_find.py",
        "letterbox",
    ),
    Mutant(
        "rows by other regions of interest are mixed",
        f"{RUNTIME}/infer_cli.py",
        '"roi": None if roi is None else asdict(roi),',
        "",
        "tests/test_regions_chain.py",
        "not_mixed",
    ),
    Mutant(
        "a score equal to the threshold is normal",
        f"{RUNTIME}/thresholds.py",
        "np.float32(score) >= np.float32(threshold)",
        "np.float32(score) > np.float32(threshold)",
        CONFORMAL,
    ),
    Mutant(
        "the label compares as float64",
        f"{RUNTIME}/thresholds.py",
        "np.float32(score) >= np.float32(threshold)",
        "score >= threshold",
        CONFORMAL,
    ),
    Mutant(
        "p-value off by one",
        f"{RUNTIME}/thresholds.py",
        "(1 + at_least) / (n + 1)",
        "at_least / n",
        CONFORMAL,
    ),
    Mutant(
        "p-value does not count ties",
        f"{RUNTIME}/thresholds.py",
        'side="left"',
        'side="right"',
        CONFORMAL,
    ),
    Mutant(
        "conformal rank off by one",
        f"{RUNTIME}/calibration.py",
        "math.ceil((n + 1) * (1 - rate) - 1e-9)",
        "math.ceil(n * (1 - rate) - 1e-9)",
        CONFORMAL,
    ),
    Mutant(
        "no rule for few normals",
        f"{RUNTIME}/calibration.py",
        "small_n = n < math.ceil(1 / requested_rate - 1e-9) - 1",
        "small_n = False",
        CONFORMAL,
    ),
    Mutant(
        "binary 0.1 is taken as more than a tenth",
        f"{RUNTIME}/calibration.py",
        "(1 - rate) - 1e-9)",
        "(1 - rate) + 1e-9)",
        CONFORMAL,
    ),
    Mutant(
        "no room for the parity tolerance above the score",
        f"{RUNTIME}/calibration.py",
        "score + abs(score) * tolerance",
        "score",
        CONFORMAL,
    ),
    Mutant(
        "the threshold is the score itself, not the next float32",
        f"{RUNTIME}/calibration.py",
        "np.nextafter(raised, np.float32(np.inf), dtype=np.float32)",
        "raised",
        CONFORMAL,
    ),
    Mutant(
        "quantiles of many scores are lower ones",
        f"{RUNTIME}/calibration.py",
        "ranks = np.ceil(np.arange(1, EXACT_SCORES + 1) * n / EXACT_SCORES) - 1",
        "ranks = np.floor(np.arange(EXACT_SCORES) * n / EXACT_SCORES)",
        CONFORMAL,
    ),
    Mutant(
        "the pixel threshold comes from image scores",
        f"{RUNTIME}/calibration.py",
        "maxima, statistic = held_out.map_max, held_out.map_statistic",
        "maxima, statistic = held_out.image, held_out.map_statistic",
        CONFORMAL,
    ),
    Mutant(
        "best F1 parts tied scores",
        "pyimgano/calibration.py",
        "np.append(ranked[:-1] > ranked[1:], True)",
        "np.ones(len(ranked), dtype=bool)",
        "tests/test_calibration_methods.py",
    ),
    Mutant(
        "the quantile of pixels keeps each map's own share only",
        f"{RUNTIME}/calibration.py",
        "self._n_kept = self._n_pixels - rank + 1",
        "self._n_kept = (self._n_pixels - rank) // self._n_maps + 1",
        "tests/test_calibration_methods.py",
    ),
    Mutant(
        "test pictures may set the threshold by their labels",
        "pyimgano/workbench/labelled_rows.py",
        """        for part in ("train", "val", "test")
        for image, digest""",
        """        for part in ("train", "val")
        for image, digest""",
        "tests/test_calibration_train.py",
        "by_their_bytes",
    ),
    Mutant(
        "bounds by groups count pictures",
        f"{RUNTIME}/binomial_bounds.py",
        "by_groups=clopper_pearson(groups_above, n_groups)",
        "by_groups=clopper_pearson(n_above, len(above))",
        "runtime/tests/test_binomial_bounds.py",
    ),
    Mutant(
        "thresholds of another model are taken",
        f"{RUNTIME}/thresholds_file.py",
        "if found != own.model_sha256:",
        "if False:",
        "runtime/tests/test_thresholds_file.py",
    ),
    Mutant(
        "a device calibrates on the pictures that it could read",
        f"{RUNTIME}/calibrate_command.py",
        "    if problems:\n        return",
        "    if False:\n        return",
        "runtime/tests/test_calibrate_cli.py",
    ),
    Mutant(
        "calibration scores by models that saw the picture",
        "pyimgano/calibration.py",
        "features.subset(np.flatnonzero(~held_out))",
        "features",
        "tests/test_calibration_false_alarm_rate.py",
    ),
    Mutant(
        "scores of a fold are put in other pictures' places",
        "pyimgano/calibration.py",
        "image[picture] = score",
        "image[n - 1 - picture] = score",
        "tests/test_training_augmentation.py",
        "scored_as_it_is",
    ),
    Mutant(
        "folds divide groups",
        "pyimgano/workbench/fitting.py",
        "parts = folds(groups, n_folds",
        "parts = folds([str(i) for i in range(len(groups))], n_folds",
        TRAIN,
        "never_saw",
    ),
    Mutant(
        "augmented copies of a picture are scored as if they were the picture",
        "pyimgano/calibration.py",
        "np.flatnonzero(held_out & samples.genuine)",
        "np.flatnonzero(held_out)",
        "tests/test_training_augmentation.py",
        "scored_as_it_is",
    ),
    Mutant(
        "tuning normals are learned from too",
        "pyimgano/datasets/spared_normals.py",
        "[row for row in normals if row.group not in chosen]",
        "list(normals)",
        "tests/test_training_tuning.py",
    ),
    Mutant(
        "a resumed training begins its finished categories anew",
        "pyimgano/workbench/runner.py",
        "if not finished.exists():",
        "shutil.rmtree(finished, ignore_errors=True)\n        if True:",
        "tests/test_training_resume.py",
        "last_state or uninterrupted",
    ),
    Mutant(
        "a training goes on with another config",
        "pyimgano/workbench/unfinished.py",
        "if not keys:",
        "if True:",
        "tests/test_training_resume.py",
        "refused_with_what_differs or other_pictures",
    ),
    Mutant(
        "val rows are trained on",
        "pyimgano/workbench/fitting.py",
        "    normals = split.train_normals()\n",
        "    normals = [*split.train_normals(), *split.val]\n",
        TRAIN,
        "val_rows",
    ),
    Mutant(
        "test rows calibrate",
        "pyimgano/workbench/fitting.py",
        'return HeldOutPlan(split.val, "val", normals)',
        'return HeldOutPlan(split.test, "val", normals)',
        TRAIN,
        "val_rows",
    ),
    Mutant(
        "the seed of the fit is ignored",
        "pyimgano/workbench/fitting.py",
        "self.context.generator.manual_seed(self.config.seed)",
        "self.context.generator.manual_seed(0)",
        TRAIN,
        "another_bank",
    ),
    Mutant(
        "groups are ignored",
        "pyimgano/datasets/rows.py",
        'return f"group:{self.group_id}" if self.group_id else f"image:{self.image}"',
        'return f"image:{self.image}"',
        "tests/test_splits_groups.py",
    ),
    Mutant(
        "the seed of the split is ignored",
        "pyimgano/datasets/splits.py",
        'f"{seed}\\0{category}\\0{name}"',
        'f"{category}\\0{name}"',
        "tests/test_splits_groups.py",
    ),
    Mutant(
        "the split depends on the order of the rows",
        "pyimgano/datasets/splits.py",
        "    free.sort(key=lambda name: _order(seed, category, name))\n",
        "",
        "tests/test_splits_groups.py",
    ),
    Mutant(
        "anomalies may be trained on",
        "pyimgano/datasets/splits.py",
        'learned = uses_defects and which == "train"',
        'learned = which == "train"',
        "tests/test_splits_groups.py",
    ),
    Mutant(
        "masks count from the first grey level on",
        "pyimgano/datasets/rows.py",
        "MASK_ABOVE: Final = 127",
        "MASK_ABOVE: Final = 0",
        TRAIN,
        "grey_levels",
    ),
    Mutant(
        "the size of a mask is not checked",
        "pyimgano/datasets/images.py",
        "if pixels.shape[:2] != size:",
        "if False:",
        "tests/test_images_masks.py",
    ),
    Mutant(
        "equal bytes in train and test are only a warning",
        "pyimgano/datasets/duplicates.py",
        'code, what = "DUPLICATE_IN_TRAIN_AND_TEST"',
        'code, what = "DUPLICATE_IN_TRAIN_AND_VAL"',
        PREFLIGHT,
        "example",
    ),
    Mutant(
        "preflight decodes nothing",
        "pyimgano/workbench/preflight.py",
        "    if content and splits:",
        "    if False:",
        "tests/test_train_cli_preflight.py",
    ),
    Mutant(
        "errors do not refuse",
        "pyimgano/train_cli.py",
        "return EXIT_REFUSED if report.has_errors else 0",
        "return 0",
        "tests/test_train_cli_preflight.py",
    ),
    Mutant(
        "a group conflict is also an anomaly in train",
        "pyimgano/datasets/splits.py",
        "return [row.split or of_group[row.group] for row in rows]",
        'return ["train" for row in rows]',
        PREFLIGHT,
        "conflict",
    ),
    Mutant(
        "what all parts share makes a pair",
        "pyimgano/datasets/near_duplicates.py",
        "np.quantile(agreement, QUANTILE)",
        "np.quantile(agreement, 1.0)",
        "tests/test_near_duplicates.py",
    ),
    Mutant(
        "links are no duplicates",
        "pyimgano/datasets/manifest.py",
        "picture = hash(real_path(row.folder, row.image))",
        "picture = hash(row.image)",
        PREFLIGHT,
        "link",
    ),
    Mutant(
        "empty masks are counted as masks",
        "pyimgano/inference/evaluation.py",
        "self.n_with_mask - len(self._empty)",
        "self.n_with_mask",
        "tests/test_workbench_report_dataset_summary.py",
    ),
    Mutant(
        "a manifest's paths depend on the folder it is made in",
        "pyimgano/datasets/manifest_writer.py",
        "return (PurePosixPath(own.relative_to(home).as_posix()) / name).as_posix()",
        "return name",
        "tests/test_manifest_cli.py",
    ),
    Mutant(
        "unknown keys are accepted",
        f"{RUNTIME}/_reader.py",
        "if key not in self.known:",
        "if False:",
        "tests/test_option_fields.py",
    ),
    Mutant(
        "an existing output is overwritten",
        f"{RUNTIME}/atomic.py",
        "any(folder.iterdir()) and not force:",
        "any(folder.iterdir()) and False:",
        "tests/test_bad_input_train.py",
        "exists",
    ),
    Mutant(
        "a failed run leaves its half",
        f"{RUNTIME}/atomic.py",
        "            shutil.rmtree(new, ignore_errors=True)\n            raise\n",
        "            raise\n",
        "runtime/tests/test_atomic.py",
    ),
    Mutant(
        "one detector's forward does not export",
        "pyimgano/detectors/pixel_stats.py",
        "return anomaly_map.amax(dim=(1, 2)), anomaly_map",
        "return torch.stack([m.amax() for m in anomaly_map]), anomaly_map",
        "tests/test_detectors_conformance.py",
        "exported_graph and pixel_stats",
    ),
    Mutant(
        "plug-ins do not reach the cells of a suite",
        "pyimgano/pipelines/suite_cell.py",
        '    load_plugins(order["plugins"])\n',
        "",
        "tests/test_plugins.py",
        "suite",
    ),
    Mutant(
        "a plug-in takes the name of a detector of ours",
        "pyimgano/detectors/plugins.py",
        "if len(claims) > 1:",
        "if len(claims) > 2:",
        "tests/test_plugins.py",
        "take",
    ),
    Mutant(
        "maps lie half a pixel off",
        f"{RUNTIME}/geometry.py",
        "np.arange(start, start + n_out, dtype=np.float64) + 0.5",
        "np.arange(start, start + n_out, dtype=np.float64)",
        "tests/test_geometry_map_to_image.py",
    ),
    Mutant(
        "a letterboxed map is taken for a stretched one",
        f"{RUNTIME}/geometry.py",
        ' if mode == "letterbox" else size',
        " if mode == 'boxed' else size",
        "tests/test_letterbox.py",
    ),
    Mutant(
        "the letterbox is rounded by a negative division",
        "pyimgano/detectors/layers.py",
        "own_height, (own_width * height + width - 1) // width",
        "own_height, -(-own_width * height // width)",
        "tests/test_letterbox.py",
    ),
    Mutant(
        "a document with tiles asks for no reader of tiles",
        f"{RUNTIME}/infer_config.py",
        "([TILING] if tiled else [])",
        "[]",
        "tests/test_tiling.py",
        "document",
    ),
    Mutant(
        "the device scores whole pictures where tiles trained",
        f"{RUNTIME}/predictor.py",
        "tiling = self.settings.tiling",
        "tiling = None",
        "tests/test_tiling.py",
        "found_where or goldens",
    ),
    Mutant(
        "goldens of tiles are scored whole",
        f"{EXPORTERS}/bundle_writer.py",
        "category.reference, pixels, export.tiling",
        "category.reference, pixels, None",
        "tests/test_tiling.py",
        "goldens",
    ),
    Mutant(
        "tiles are joined a tile too far left",
        f"{RUNTIME}/tiling.py",
        "row, column = self._start(top, 0), self._start(left, 1)",
        "row, column = self._start(top, 0), 0",
        "tests/test_tiling.py",
        "found_where",
    ),
    Mutant(
        "a fade begins with nothing, and leaves cells out",
        f"{RUNTIME}/tile_weights.py",
        "return np.maximum(1.0, np.floor(LARGEST * shares + 0.5))",
        "return np.floor(LARGEST * shares + 0.5)",
        "runtime/tests/test_tiling_seams.py",
        "never_0 or no_cell_out",
    ),
    Mutant(
        "top_k takes the lowest scores",
        f"{RUNTIME}/tiling.py",
        "highest = np.sort(values)[::-1][: tiling.top_k]",
        "highest = np.sort(values)[: tiling.top_k]",
        "tests/test_tiling.py",
        "highest",
    ),
    Mutant(
        "a document with a fade says the version before",
        f"{RUNTIME}/infer_config.py",
        "if any(_joins_as_of_1_3(one.tiling) for one in settings):",
        "if False:",
        "tests/test_tiling.py",
        "newer_reader",
    ),
    Mutant(
        "a detector trains on whole pictures in spite of tiles",
        "pyimgano/workbench/fitting.py",
        "tiling=self.config.tiles",
        "tiling=None",
        "tests/test_tiling.py",
        "joined_scores or learns",
    ),
    Mutant(
        "several metadata keys, in random order",
        "pyimgano/detectors/__init__.py",
        "{METADATA_KEY: json.dumps(facts, sort_keys=True)}",
        "{METADATA_KEY: json.dumps(facts), 'a': '1', 'b': '2', 'c': '3', 'd': '4'}",
        "tests/test_detectors_conformance.py",
        "saved_as_the_same_bytes",
    ),
    Mutant(
        "the exported batch is fixed",
        f"{EXPORTERS}/onnx_graph.py",
        '            0: dimension("batch", min=1, max=1024),\n',
        "",
        EXPORT,
        "is_not_changed",
    ),
    Mutant(
        "source paths stay in the graph",
        f"{EXPORTERS}/onnx_graph.py",
        "    strip(model)\n",
        "",
        EXPORT,
        "is_not_changed",
    ),
    Mutant(
        "the parity tolerance of scores is ignored",
        f"{EXPORTERS}/parity.py",
        "if not self.max_rel_score_diff <= SCORE_REL:",
        "if False:",
        EXPORT,
        "tolerance or unlike",
    ),
    Mutant(
        "the parity tolerance of maps is ignored",
        f"{EXPORTERS}/parity.py",
        "if share is not None and not share <= MAP_OF_RANGE:",
        "if False:",
        EXPORT,
        "tolerance or unlike",
    ),
    Mutant(
        "label flips are not counted",
        f"{EXPORTERS}/parity.py",
        "self.flipped.append(name)",
        "pass",
        EXPORT,
        "flipped",
    ),
    Mutant(
        "scores that are no numbers agree",
        f"{EXPORTERS}/parity.py",
        "math.inf if math.isnan(difference) else max(so_far, difference)",
        "max(so_far, difference)",
        EXPORT,
        "no_number",
    ),
    Mutant(
        "synthetic goldens show few normals",
        f"{EXPORTERS}/goldens.py",
        "if count < MIN_NORMALS:",
        "if count < 1:",
        EXPORT,
        "normals_leave_no_trace",
    ),
    Mutant(
        "red and blue are swapped",
        f"{RUNTIME}/decode.py",
        "cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr)",
        "bgr",
        "runtime/tests/test_decode_opencv.py",
    ),
    Mutant(
        "the camera's orientation is ignored",
        f"{RUNTIME}/decode.py",
        "_turn(pixels, header.orientation)",
        "pixels",
        "runtime/tests/test_decode_opencv.py",
    ),
    Mutant(
        "any number of pixels is decoded",
        f"{RUNTIME}/decode.py",
        "if height * width > rules.max_pixels:",
        "if False:",
        "runtime/tests/test_decode_hostile.py",
    ),
    Mutant(
        "the hash of a file is not checked",
        f"{RUNTIME}/paths.py",
        "if found != sha256:",
        "if False:",
        "runtime/tests/test_bundle_paths.py",
    ),
    Mutant(
        "the size of a file is not checked",
        f"{RUNTIME}/paths.py",
        "if size is not None and len(data) != size:",
        "if False:",
        "runtime/tests/test_bundle_paths.py",
    ),
    Mutant(
        "links are followed",
        f"{RUNTIME}/paths.py",
        'nofollow = getattr(os, "O_NOFOLLOW", 0)',
        "nofollow = 0",
        "runtime/tests/test_bundle_paths.py",
    ),
    Mutant(
        "hard links are opened",
        f"{RUNTIME}/paths.py",
        "if facts.st_nlink > 1 and not allow_hard_links:",
        "if False:",
        "runtime/tests/test_bundle_paths.py",
    ),
    Mutant(
        "check does not compare maps",
        f"{RUNTIME}/check.py",
        'map_diff <= tolerances["map_of_range"]',
        "True",
        "runtime/tests/test_check_goldens.py",
    ),
    Mutant(
        "refused operators run",
        f"{RUNTIME}/onnx_rules.py",
        "refused = facts.operators & REFUSED",
        "refused = set()",
        "runtime/tests/test_onnx_rules.py",
    ),
    Mutant(
        "contract: a checkpoint may lie anywhere",
        "pyimgano/inference/config.py",
        "if not any(target.is_relative_to(root) for root in roots):",
        "if not roots:",
        "tests/test_infer_config_relative_checkpoint.py",
    ),
    Mutant(
        "contract: a changed checkpoint is loaded",
        "pyimgano/detectors/__init__.py",
        "if sha256 is not None and found != sha256:",
        "if sha256 is not None and not found:",
        "tests/test_infer_config_relative_checkpoint.py",
    ),
    Mutant(
        "contract: a threshold without provenance is taken",
        f"{RUNTIME}/infer_config_checks.py",
        "elif kind not in thresholds.provenance:",
        "elif kind not in THRESHOLD_KINDS:",
        "tests/test_infer_config_loader.py",
    ),
    Mutant(
        "ledger: resume judges again what has a row",
        f"{RUNTIME}/ledger.py",
        """                        del self._rows[digest]
                    continue""",
        """                        del self._rows[digest]""",
        "runtime/tests/test_infer_ledger.py",
        "resume_gives",
    ),
    Mutant(
        "ledger: half of a last line stays",
        f"{RUNTIME}/ledger.py",
        """        os.ftruncate(self._file, self._size)
        if self._size == 0""",
        """        if self._size == 0""",
        "runtime/tests/test_infer_ledger.py",
        "resume_gives",
    ),
    Mutant(
        "ledger: half of a row stays on a full disk",
        f"{RUNTIME}/ledger.py",
        "os.ftruncate(self._file, self._size)  # no half of a row stays",
        "pass",
        "runtime/tests/test_infer_ledger.py",
        "full_disk",
    ),
    Mutant(
        "ledger: two processes write to one",
        f"{RUNTIME}/ledger.py",
        'with only_writer(self.path, "file"):',
        "if True:",
        "runtime/tests/test_infer_ledger.py",
        "second_process",
    ),
    Mutant(
        "ledger: settings are not compared",
        f"{RUNTIME}/ledger.py",
        "            self._refuse_other_settings(found, settings)\n",
        "",
        "runtime/tests/test_infer_ledger.py",
        "settings or bundle",
    ),
    Mutant(
        "ledger: maps take their names again after a stop",
        f"{RUNTIME}/row_output.py",
        'if (self.needed or self._masks is not None) and row["ok"]:',
        "if False:",
        "runtime/tests/test_infer_ledger.py",
        "maps_keep",
    ),
    Mutant(
        "watch: a file that grows is taken",
        f"{RUNTIME}/watch.py",
        "since = since if before == state else now",
        "since = since if before else now",
        "runtime/tests/test_infer_watch.py",
        "grows",
    ),
    Mutant(
        "watch: a replaced file is the one of before",
        f"{RUNTIME}/ledger.py",
        "if state is not None:",
        "if False:",
        "runtime/tests/test_infer_watch.py",
        "replaced",
    ),
    Mutant(
        "watch: files inside of hidden folders are taken",
        f"{RUNTIME}/watch.py",
        'if not entry.name.startswith("."):  # where files are made ready',
        "if True:",
        "runtime/tests/test_infer_watch.py",
        "hidden",
    ),
    Mutant(
        "infer: pictures wait until more of them come",
        f"{RUNTIME}/ordered_threads.py",
        "(1 if item is None else most)",
        "most",
        "runtime/tests/test_decode_workers.py",
        "wait",
    ),
    Mutant(
        "infer: a score at the edge of the review band is not for review",
        f"{RUNTIME}/rows.py",
        "if distance <= review_band",
        "if distance < review_band",
        "runtime/tests/test_infer_report.py",
        "band",
    ),
    Mutant(
        "infer: a missed gate outweighs a failed input",
        f"{RUNTIME}/infer_cli.py",
        """    if tally.failed:
        return EXIT_INPUTS
    if missed:
        return EXIT_GATE""",
        """    if missed:
        return EXIT_GATE
    if tally.failed:
        return EXIT_INPUTS""",
        "runtime/tests/test_infer_report.py",
        "outweighs",
    ),
    Mutant(
        "infer: an anomaly rate of nothing is kept",
        f"{RUNTIME}/run_report.py",
        "limit is not None and value is not None and value <= limit",
        "limit is not None and (value or 0) <= limit",
        "runtime/tests/test_infer_report.py",
        "unknown",
    ),
    Mutant(
        "infer: the colours of a video are swapped",
        f"{RUNTIME}/video.py",
        "cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)",
        "bgr",
        "runtime/tests/test_infer_streams.py",
        "colours",
    ),
    Mutant(
        "contract: infer ignores the threshold of its flag",
        "pyimgano/pipelines/infer_command.py",
        """            device=choose_device(plan.device),
            threshold=options.threshold,""",
        """            device=choose_device(plan.device),
            threshold=None,""",
        "tests/test_infer_cli_infer_config.py",
        "threshold",
    ),
    Mutant(
        "contract: a flag is said to come from the file",
        "pyimgano/pipelines/infer_command.py",
        'origins |= {"thresholds.image": FLAG,',
        'origins |= {"thresholds.other": FLAG,',
        "tests/test_infer_cli_infer_config.py",
        "origin",
    ),
    Mutant(
        "contract: infer's fit forgets the preset",
        "pyimgano/pipelines/infer_source.py",
        '"preset": options.preset,',
        '"preset": None,',
        "tests/test_infer_cli_infer_config.py",
        "effective or preset",
    ),
    Mutant(
        "contract: training forgets the preset",
        "pyimgano/workbench/fitting.py",
        "preset=config.model.preset",
        "preset=None",
        "tests/test_workbench_export_infer_config.py",
        "preset",
    ),
    Mutant(
        "contract: onnxruntime may send telemetry",
        f"{RUNTIME}/quiet_onnxruntime.py",
        'os.environ.setdefault(SWITCH, "1")',
        'os.environ.setdefault(SWITCH, "0")',
        "tests/test_bundle_portability.py",
        "pixel_stats",
    ),
    Mutant(
        "contract: another release is opened",
        f"{RUNTIME}/bundle.py",
        "if expect_sha256 is not None and digest != expect_sha256.lower():",
        "if expect_sha256 is not None and not digest:",
        "runtime/tests/test_bundle_paths.py",
    ),
    Mutant(
        "contract: verify takes a file that is not listed",
        "pyimgano/pipelines/verify_bundle.py",
        "for path in bundle.unlisted_files()",
        "for path in bundle.unlisted_files()[:0]",
        "tests/test_bundle_verify.py",
        "not_listed",
    ),
    Mutant(
        "a gate asks for the other direction",
        "pyimgano/pipelines/gates.py",
        'value >= gate.limit if gate.bound == "min"',
        'value <= gate.limit if gate.bound == "min"',
        ACCEPT,
    ),
    Mutant(
        "what was not measured meets a gate",
        "pyimgano/pipelines/gates.py",
        "met = value is not None and (",
        "met = value is None or (",
        ACCEPT,
    ),
    Mutant(
        "a bundle that finds nothing is accepted",
        "pyimgano/pipelines/accept_bundle.py",
        "recall, bool(recall), reason)",
        "recall, recall is not None, reason)",
        ACCEPT,
        "finds_nothing",
    ),
    Mutant(
        "finished cells run again",
        "pyimgano/pipelines/run_suite.py",
        "missing = [cell for cell in wanted if not is_finished(output, cell)]",
        "missing = list(wanted)",
        SUITE,
        "not_run_again",
    ),
    Mutant(
        "another suite goes on in the same folder",
        "pyimgano/pipelines/suite_folder.py",
        "    if keys:",
        "    if not path:",
        SUITE,
        "another_suite",
    ),
    Mutant(
        "a failure of a cell is lost",
        "pyimgano/pipelines/suite_cell.py",
        '_say({"failed":',
        '_say({"finished":',
        SUITE,
        "cell_that_fails",
    ),
    Mutant(
        "test normals without a split are drawn by the run's seed alone",
        "pyimgano/pipelines/benchmark_command.py",
        '"split_seed": seed if split_seed is None else split_seed,',
        '"split_seed": seed,',
        "tests/test_cli_smoke_manifest_benchmark.py",
        "split_seed",
    ),
    Mutant(
        "the torch engine is measured in the process of onnx",
        "pyimgano/pipelines/engine_process.py",
        'opened = _open_torch if order["engine"] == "torch" else _open_onnx',
        'opened = _open_torch if order["run"] else _open_torch',
        "tests/test_benchmark_cli.py",
        "alone_in_a_process",
    ),
    Mutant(
        "the worse of a pair is called better",
        "pyimgano/reporting/leaderboard_page.py",
        'found["model_b"] if difference > 0 else found["model_a"]',
        'found["model_a"] if difference > 0 else found["model_b"]',
        "tests/test_leaderboard_page.py",
        "separated",
    ),
    Mutant(
        "a report holds photographs although none were wanted",
        "pyimgano/report_cli.py",
        "gallery=0 if no_pictures else gallery,",
        "gallery=gallery,",
        "tests/test_report.py",
        "without_pictures",
    ),
    Mutant(
        "a report shows the mildest mistakes first",
        "pyimgano/reporting/report_gallery.py",
        'falling("missed")[::-1], falling("false alarm")',
        'falling("missed"), falling("false alarm")',
        "tests/test_report_words.py",
        "worst_come_first",
    ),
    Mutant(
        "more false alarms than promised agree with the promise",
        "pyimgano/reporting/threshold_story.py",
        "    if promised < low:",
        "    if promised < 0:",
        "tests/test_report_words.py",
        "held_against",
    ),
    Mutant(
        "pictures that may have trained accept a bundle",
        "pyimgano/pipelines/accept_bundle.py",
        'if not measured["held_out_known"]:',
        "if False:",
        ACCEPT,
        "may_have_trained",
    ),
    Mutant(
        "a category without pictures is accepted",
        "pyimgano/pipelines/accept_bundle.py",
        "        if not narrowed:",
        "        if narrowed is None:",
        ACCEPT,
        "every_category",
    ),
    Mutant(
        "a cell of other data is kept",
        "pyimgano/pipelines/suite_folder.py",
        'if recorded[cell.id]["rows_sha256"] != cell.rows_sha256:',
        "if False:",
        SUITE,
        "data_changed",
    ),
    Mutant(
        "a regression is an improvement",
        "pyimgano/metrics/report_keys.py",
        """        "false_alarm_rate",
        "lower",""",
        """        "false_alarm_rate",
        "higher",""",
        "tests/test_runs_compare.py",
    ),
    Mutant(
        "SegF1 counts only what lies above the threshold",
        "pyimgano/metrics/pixel.py",
        ">= self._threshold",
        "> self._threshold",
        "tests/test_metrics_pixel.py",
    ),
)


def run_tests(tree: Path, tests: str, only: str) -> tuple[int, str]:
    """Give pytest's exit code and its output on a copy of the tree."""
    in_runtime = tests.startswith("runtime/")
    sources = (".", "exporters", "runtime/src", "tests")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(tree / source) for source in sources),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [tests.removeprefix("runtime/"), *(["-k", only] if only else [])]
    try:
        done = subprocess.run(
            command,
            cwd=tree / "runtime" if in_runtime else tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return -1, f"took longer than {TIMEOUT_S} s"
    return done.returncode, done.stdout + done.stderr


def copy_tree(folder: Path) -> Path:
    """Give a copy of the sources and tests in `folder`."""
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*")
    for name in COPIED:
        source, target = REPOSITORY / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return tree


def failure_without_mutants(selection: tuple[str, Sequence[str]]) -> str | None:
    """Give what fails in the unbroken tree; None if all is well."""
    tests, onlys = selection
    only = "" if "" in onlys else " or ".join(onlys)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        code, output = run_tests(copy_tree(Path(folder)), tests, only)
    if code == 0:
        return None
    return f"{tests} fails without any break (exit {code}):\n{output[-1500:]}"


def try_mutant(mutant: Mutant) -> tuple[Mutant, str | None, str, float]:
    """Give (mutant, the test that caught it or None, why not, seconds)."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = copy_tree(Path(folder))
        path = tree / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            found = text.count(mutant.old)
            return mutant, None, f"its text stands {found} times in the file", 0.0
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        code, output = run_tests(tree, mutant.tests, mutant.only)
    seconds = time.monotonic() - start
    failed = re.search(r"^(?:FAILED|ERROR) \S*?::(\w+)", output, re.MULTILINE)
    if code == TESTS_FAILED and failed is not None:
        return mutant, failed[1], "", seconds
    why = "SURVIVED" if code == 0 else f"exit {code}: {output[-800:]}"
    return mutant, None, why, seconds


def chosen_mutants(words: Sequence[str]) -> list[Mutant]:
    """Give the mutants whose name holds one of the words; all without words."""
    return [m for m in MUTANTS if not words or any(word in m.name for word in words)]


def selections(mutants: Iterable[Mutant]) -> list[tuple[str, list[str]]]:
    """Give each test file once, with every choice of its tests."""
    found: dict[str, list[str]] = defaultdict(list)
    for mutant in mutants:
        if mutant.only not in found[mutant.tests]:
            found[mutant.tests].append(mutant.only)
    return list(found.items())


def main(words: Sequence[str]) -> int:
    """Try the mutants and print the table."""
    start = time.monotonic()
    mutants = chosen_mutants(words)
    if not mutants:
        print(f"no mutant has a name with {' or '.join(words)}", file=sys.stderr)
        return 2
    survived = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        failures = pool.map(failure_without_mutants, selections(mutants))
        broken = [failure for failure in failures if failure is not None]
        if broken:
            print("\n".join(broken), file=sys.stderr)
            return 1
        print(f"{'break':<56} {'file':<22} {'s':>5}  caught by")
        for mutant, test, why, seconds in pool.map(try_mutant, mutants):
            survived += test is None
            name, file = mutant.name, Path(mutant.file).name
            print(f"{name:<56} {file:<22} {seconds:>5.0f}  {test or why}", flush=True)
    minutes = (time.monotonic() - start) / 60
    caught = len(mutants) - survived
    print(f"{caught} of {len(mutants)} caught in {minutes:.1f} minutes")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
