"""What can be wrong with a data set: stable codes, and a log that stays small.

    log = IssueLog()
    log.add("MANIFEST_MISSING_IMAGE", "m.jsonl:7: image_path: ...", line=7)
    log.raise_errors()

Codes are never renamed; docs/preflight.md lists them from the table here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pyimgano_runtime.errors import DatasetError

IssueSeverity = Literal["error", "warning", "info"]
SEVERITIES: Final[tuple[IssueSeverity, ...]] = ("error", "warning", "info")

REPORT_SCHEMA_VERSION: Final = "1.0"
KEPT_PER_CODE: Final = 200  # the others are counted
MAX_LISTED: Final = 20  # problems in the words of one error


@dataclass(frozen=True, slots=True)
class IssueCode:
    """What a code stands for."""

    severity: IssueSeverity
    meaning: str
    advice: str  # what to do


ISSUE_CODES: Final[dict[str, IssueCode]] = {
    # The manifest as a file.
    "MANIFEST_PATH_MISSING": IssueCode(
        "error", "no manifest is named", "name it in dataset.manifest_path"
    ),
    "MANIFEST_NOT_FOUND": IssueCode(
        "error", "there is no such file", "correct the path"
    ),
    "MANIFEST_NOT_READABLE": IssueCode(
        "error",
        "a folder, a device, or not permitted",
        "name a regular file that may be read",
    ),
    "MANIFEST_EMPTY": IssueCode(
        "error", "the file holds no rows", "write one picture a line"
    ),
    # Its lines.
    "MANIFEST_INVALID_JSON": IssueCode(
        "error",
        "a line is no JSON object: damage, a key twice, NaN, a byte-order mark",
        "correct the line at the column that is named",
    ),
    "MANIFEST_INVALID_RECORD": IssueCode(
        "error",
        "a field is missing, unknown, of a wrong type or out of range",
        "correct the field; the nearest known name is suggested",
    ),
    "MANIFEST_PATH_ESCAPE": IssueCode(
        "error",
        "a path is absolute or leaves its folder by ..",
        "write it relative to the manifest, or set the root",
    ),
    "MANIFEST_MISSING_IMAGE": IssueCode(
        "error",
        "the picture is neither beside the manifest nor under the root",
        "correct the path or set the root",
    ),
    "MANIFEST_MISSING_MASK": IssueCode(
        "error",
        "the mask is neither beside the manifest nor under the root",
        "correct the path, or set mask_path to null",
    ),
    "MANIFEST_DUPLICATE_IMAGE": IssueCode(
        "error",
        "one picture stands on two lines of a category, links resolved",
        "keep one of the lines",
    ),
    "MANIFEST_CATEGORY_EMPTY": IssueCode(
        "error",
        "a category that was asked for has no rows",
        "correct the name; the known ones are listed",
    ),
    # Groups and splits.
    "MANIFEST_GROUP_SPLIT_CONFLICT": IssueCode(
        "error",
        "pictures of one part stand in two splits",
        "give all rows of the group the same split",
    ),
    "MANIFEST_GROUP_ANOMALY_IN_TRAIN": IssueCode(
        "error",
        "an anomaly without a split comes into train or val with its group",
        'set the split of the whole group to "test"',
    ),
    "MANIFEST_ANOMALY_IN_TRAIN": IssueCode(
        "error",
        "a row of train or val is labelled as an anomaly; info in train where the "
        "detector learns from defects",
        'set its split to "test"',
    ),
    # Folders in place of a manifest.
    "DATASET_UNKNOWN": IssueCode(
        "error", "no such kind of data set", "take one of those that are listed"
    ),
    "DATASET_ROOT_MISSING": IssueCode(
        "error",
        "no root folder is named, or it is no folder",
        "name the folder that holds the data set",
    ),
    "DATASET_CATEGORY_EMPTY": IssueCode(
        "error",
        "a category has no pictures, or there is no category at all",
        "correct the name or the root",
    ),
    "DATASET_INVALID_STRUCTURE": IssueCode(
        "error",
        "folders are not those of the layout",
        "arrange them as the message shows, or make a manifest",
    ),
    # Enough of it?
    "NO_NORMALS_TO_TRAIN": IssueCode(
        "error",
        "a category has no normal picture in train",
        'give rows label 0 and split "train" or no split',
    ),
    "TOO_FEW_NORMALS_TO_TRAIN": IssueCode(
        "warning",
        "fewer than 20 normals to learn from",
        "add pictures of other good parts",
    ),
    "CALIBRATION_IMPOSSIBLE": IssueCode(
        "error",
        "no normals are left to set a threshold on",
        'add normals, or set calibration.method to "fixed"',
    ),
    "TOO_FEW_NORMALS_TO_CALIBRATE": IssueCode(
        "warning",
        "the normals cannot promise the false-alarm rate that was asked for",
        "add normals or ask for the rate that the message names",
    ),
    "TEST_WITHOUT_NORMALS": IssueCode(
        "warning",
        "no normal in test: false alarms cannot be measured",
        "move some normals to test",
    ),
    "TEST_WITHOUT_ANOMALIES": IssueCode(
        "warning",
        "no anomaly in test: recall and AUROC cannot be measured",
        "add pictures of defects to test",
    ),
    "TEST_ANOMALIES_WITHOUT_MASK": IssueCode(
        "info",
        "anomalies without a mask are left out of pixel metrics",
        "draw masks where the place of the defect matters",
    ),
    # Pictures. The codes IMAGE_* up to IMAGE_TOO_SMALL are those of the runtime's rows.
    "IMAGE_TRUNCATED": IssueCode(
        "error", "the file ends too early", "copy it again from its source"
    ),
    "IMAGE_EMPTY": IssueCode("error", "the file has 0 bytes", "copy it again"),
    "IMAGE_UNREADABLE": IssueCode(
        "error", "no picture, or damaged inside", "replace it or remove the row"
    ),
    "IMAGE_READ_FAILED": IssueCode(
        "error", "the file may not be read", "correct its permissions"
    ),
    "IMAGE_MISSING": IssueCode(
        "error", "the file vanished while it was looked at", "start again"
    ),
    "IMAGE_NOT_A_FILE": IssueCode(
        "error", "no regular file stands at the path", "name the picture itself"
    ),
    "IMAGE_BIT_DEPTH": IssueCode(
        "error", "more than 8 bits per channel", "convert all with one fixed scale"
    ),
    "IMAGE_COLOR_SPACE": IssueCode(
        "error", "neither grey nor RGB, such as CMYK", "convert it to RGB"
    ),
    "IMAGE_FRAMES": IssueCode(
        "error", "several pictures in one file", "save each as a file of its own"
    ),
    "IMAGE_TOO_LARGE": IssueCode(
        "error", "more pixels than the input rules allow", "crop or shrink it"
    ),
    "IMAGE_TOO_SMALL": IssueCode(
        "error", "smaller than the input rules allow", "use a larger picture"
    ),
    "IMAGE_SIZE": IssueCode(
        "error", "not exactly the size that the input rules ask for", "crop it"
    ),
    "IMAGE_DTYPE": IssueCode(
        "error",
        "an array of something else than uint8",
        "convert all with one fixed scale",
    ),
    "IMAGE_SHAPE": IssueCode(
        "error",
        "an array that is neither (H, W) nor (H, W, 3)",
        "reorder its axes or leave out alpha",
    ),
    "DECODER_MISSING": IssueCode(
        "error", "no decoder for this format is installed", "install OpenCV"
    ),
    "IMAGE_SIZE_UNUSUAL": IssueCode(
        "warning",
        "another size or shape than nearly all others of its category",
        "take it with the same camera setting, or remove it",
    ),
    "IMAGE_SIZES_VARY": IssueCode(
        "info",
        "the pictures of a category have many sizes; all are stretched to one",
        "check that this is meant",
    ),
    "IMAGE_CHANNELS_UNUSUAL": IssueCode(
        "warning", "grey among colour pictures, or the other way", "save all alike"
    ),
    "IMAGE_BIT_DEPTH_UNUSUAL": IssueCode(
        "warning", "another bit depth than the others", "save all alike"
    ),
    "IMAGE_TOO_DARK": IssueCode(
        "warning", "hardly anything above black", "check exposure and light"
    ),
    "IMAGE_SATURATED": IssueCode(
        "warning",
        "far more pixels at full white than in the others",
        "check exposure and light",
    ),
    "IMAGE_BLURRED": IssueCode(
        "warning", "far less sharp than the others", "check focus and motion"
    ),
    "IMAGE_CONSTANT": IssueCode(
        "warning", "all pixels are (nearly) the same", "remove it"
    ),
    # Masks.
    "MASK_UNREADABLE": IssueCode(
        "error", "the mask cannot be decoded", "replace the mask"
    ),
    "MASK_SIZE_MISMATCH": IssueCode(
        "error",
        "the mask has another size than its picture",
        "make it with the same height and width",
    ),
    "MASK_EMPTY": IssueCode(
        "warning",
        "the mask of an anomaly marks nothing; it is left out of pixel metrics",
        "make the defect 255, or state mask_above",
    ),
    "MASK_NOT_BINARY": IssueCode(
        "warning",
        "the mask has values between black and white",
        "save it as PNG with 0 and 255, or state mask_above",
    ),
    "MASK_ON_NORMAL": IssueCode(
        "warning",
        "a normal picture has a mask, which is ignored; info where it is blank",
        "correct the label, or set mask_path to null",
    ),
    # The same picture again.
    "DUPLICATE_IN_TRAIN_AND_TEST": IssueCode(
        "error",
        "a test picture has the bytes of one that trains or calibrates",
        "remove one of them",
    ),
    "DUPLICATE_IN_TRAIN_AND_VAL": IssueCode(
        "warning",
        "a calibration picture has the bytes of one that trains",
        "remove one of them",
    ),
    "DUPLICATE_IN_SPLIT": IssueCode(
        "warning", "the same bytes twice in one split", "remove one of them"
    ),
    "DUPLICATE_IN_CATEGORIES": IssueCode(
        "warning", "the same bytes in two categories", "check which one it shows"
    ),
    "DUPLICATE_WITH_OTHER_LABEL": IssueCode(
        "warning",
        "the same bytes are normal on one row and an anomaly on another",
        "decide which it is",
    ),
    "NEAR_DUPLICATE_IN_TRAIN_AND_TEST": IssueCode(
        "warning",
        "pictures of test look like the same part or frame as pictures of train or val",
        "look at them; give pictures of one part one group_id",
    ),
    # Paths that another machine reads differently.
    "PATH_LINK": IssueCode(
        "warning",
        "a link leads out of the folder of the data set",
        "copy the file, for a copy of the folder will lack it",
    ),
    "PATH_COLLISION": IssueCode(
        "warning",
        "two paths differ only in case or in Unicode normal form",
        "rename one: other systems see one file",
    ),
    "PATH_NOT_PORTABLE": IssueCode(
        "warning",
        "a name that Windows does not allow",
        'rename it: no < > : " | ? * \\, no dot or space at the end',
    ),
}


@dataclass(frozen=True, slots=True)
class PreflightIssue:
    """One finding; `context` holds its facts (line, image, numbers), JSON-friendly."""

    code: str
    severity: IssueSeverity
    message: str
    context: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the issue as a JSON object."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "context": self.context,
        }


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What preflight found; JSON-friendly.

    Attributes:
        dataset: the kind of data set: "manifest", "mvtec", ...
        category: the one that was asked for; None for all or several.
        summary: `counts` and `mask_coverage` in all and by category, `issues` by
            severity and by code, `content` where the pictures were decoded.
        issues: errors first; at most 200 of a code, `summary` counts all.
    """

    dataset: str
    category: str | None
    summary: dict[str, Any]
    issues: tuple[PreflightIssue, ...]

    @property
    def has_errors(self) -> bool:
        """Whether the data set is refused."""
        return any(issue.severity == "error" for issue in self.issues)

    def to_json(self) -> dict[str, Any]:
        """Give the report as a JSON object."""
        return {
            "schema_version": REPORT_SCHEMA_VERSION,
            "dataset": self.dataset,
            "category": self.category,
            "summary": self.summary,
            "issues": [issue.to_json() for issue in self.issues],
        }


@dataclass(slots=True)
class IssueLog:
    """Collects issues: all are counted, the first 200 of each code are kept."""

    issues: list[PreflightIssue] = field(default_factory=list)
    counts: Counter[tuple[IssueSeverity, str]] = field(default_factory=Counter)

    def add(
        self,
        code: str,
        message: str,
        *,
        severity: IssueSeverity | None = None,
        **context: Any,
    ) -> None:
        """Note one issue; its severity is the code's own unless given."""
        severity = severity or ISSUE_CODES[code].severity
        self.counts[severity, code] += 1
        if self.counts[severity, code] <= KEPT_PER_CODE:
            self.issues.append(PreflightIssue(code, severity, message, context))

    @property
    def n_errors(self) -> int:
        """How many issues refuse the data set."""
        return sum(n for (severity, _), n in self.counts.items() if severity == "error")

    def sorted(self) -> list[PreflightIssue]:
        """Give the kept issues: errors first, else in the order they were found."""
        return sorted(self.issues, key=lambda issue: SEVERITIES.index(issue.severity))

    def raise_errors(self) -> None:
        """Raise one DatasetError that lists the first errors and counts the rest."""
        errors = [i.message for i in self.issues if i.severity == "error"]
        _raise(errors, self.n_errors)


def raise_listed(problems: Iterable[str]) -> None:
    """Raise a DatasetError that lists the first problems and counts the rest."""
    found = list(problems)
    _raise(found, len(found))


def _raise(problems: list[str], total: int) -> None:
    if not total:
        return
    head = [] if total == 1 else [f"{total} problems:"]
    shown = problems[:MAX_LISTED]
    tail = [f"... and {total - len(shown)} more"] if total > len(shown) else []
    raise DatasetError("\n".join(head + shown + tail))
