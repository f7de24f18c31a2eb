"""What a drift reading means, in sentences: what is seen, and what to do."""

from __future__ import annotations

from typing import Final

from .drift import (
    BRIGHTNESS,
    LEAST_REFERENCE,
    LEAST_WINDOW,
    SCORE,
    SHARPNESS,
    DriftReading,
    StatisticReading,
)
from .quick_dataclass import dataclass

DRIFT: Final = "drift"
STABLE: Final = "no drift"
NOT_JUDGED: Final = "not judged"

NO_REFERENCE: Final = (
    "This bundle holds no reference of pictures (it was made before schema 1.3), so "
    "brightness and sharpness are not compared: only scores are, with those of its "
    "calibration. Train and export again to watch the pictures too."
)
NOTHING_KNOWN: Final = (
    "This bundle holds neither calibration scores nor a reference of pictures: there "
    "is nothing to compare with. Train and export again, or calibrate on this device "
    '("pyimgano-runtime calibrate").'
)
# (statistic, higher than in training) -> what it looks like, what to do
_MEANINGS: Final = {
    (BRIGHTNESS, True): (
        "The pictures are brighter than in training",
        "Look at the lamp, the exposure time and the aperture, and for daylight that "
        "gets in.",
    ),
    (BRIGHTNESS, False): (
        "The pictures are darker than in training",
        "Look at the lamp (age, dirt, position), the exposure time and the aperture.",
    ),
    (SHARPNESS, True): (
        "The pictures are sharper or noisier than in training",
        "Look at the camera's gain and sharpening, the focus, and for a new surface or "
        "background.",
    ),
    (SHARPNESS, False): (
        "The pictures are less sharp than in training",
        "Clean the lens, look at the focus, and for vibration or a longer exposure.",
    ),
    (SCORE, True): (
        "The parts score higher than the normals of the calibration",
        "Look at the pictures with the highest scores of this window. If these parts "
        "are good, the product, the material or the position has changed: calibrate on "
        'pictures of now ("pyimgano-runtime calibrate"), or train again with them. '
        "Until then expect more false alarms than promised.",
    ),
    (SCORE, False): (
        "The parts score lower than the normals of the calibration",
        "Look at a few pictures: is the part still in the picture, and the same "
        "product? If all is well, calibrate again: the threshold is now higher than it "
        "need be, and defects may slip through.",
    ),
}
_OTHERWISE: Final = {
    SCORE: "The scores are spread in another way than in the calibration",
    BRIGHTNESS: "The brightness is spread in another way than in training",
    SHARPNESS: "The sharpness is spread in another way than in training",
}
_LOOK: Final = (
    "The mean has hardly moved, so look for a change between pictures: a lamp that "
    "flickers, several products or stations in one stream."
)
_SAME_LIGHT: Final = (
    "Light and sharpness are as in training, so the change is in the parts or in how "
    "they lie, not in the camera."
)
_PICTURES_FIRST: Final = (
    "Scores follow the light and the lens: see to the pictures first, and look at the "
    "scores again after that."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reading in words."""

    state: str  # "drift", "no drift" or "not judged"
    headline: str
    findings: tuple[tuple[str, str], ...]  # (what is seen, what to do)


def verdict_of(reading: DriftReading) -> Verdict:
    """Give a reading in words."""
    if not reading.judged:
        return Verdict(NOT_JUDGED, _why_not_judged(reading), ())
    findings = [
        _finding(name, reading.statistics[name])
        for name in (BRIGHTNESS, SHARPNESS, SCORE)
        if name in reading.alarms
    ]
    if not findings:
        return Verdict(
            STABLE,
            f"The last {reading.window} pictures differ from training by no more than "
            "chance allows.",
            (),
        )
    pictures_known = BRIGHTNESS in reading.statistics
    if SCORE in reading.alarms and pictures_known:
        seen, advice = findings.pop()
        if findings:
            findings.append((seen, _PICTURES_FIRST))
        else:
            findings.append((seen, f"{_SAME_LIGHT} {advice}"))
    return Verdict(
        DRIFT,
        f"The last {reading.window} pictures are not like those of training.",
        tuple(findings),
    )


def _finding(name: str, found: StatisticReading) -> tuple[str, str]:
    change = (
        f"{shown(found.mean)} on average now, {shown(found.reference.mean)} then "
        f"({found.mean - found.reference.mean:+.3g})"
    )
    if found.alarms == ("psi",) and "shift" not in found.alarms:
        return f"{_OTHERWISE[name]}: {change}.", _LOOK
    seen, advice = _MEANINGS[name, found.shift > 0]
    return f"{seen}: {change}.", advice


def _why_not_judged(reading: DriftReading) -> str:
    if not reading.statistics:
        return "No picture was scored yet."
    if reading.window < LEAST_WINDOW:
        return (
            f"{count_of(reading.window, 'picture')} so far: too few to tell drift from "
            f"chance, which is judged from {LEAST_WINDOW} on."
        )
    n = max(s.reference.n_groups for s in reading.statistics.values())
    return (
        f"The reference is of {n} parts; with fewer than {LEAST_REFERENCE} nobody can "
        "tell drift from chance. Train or calibrate with more good parts."
    )


def count_of(number: int, what: str) -> str:
    """Give `1 picture`, `2 pictures`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def shown(value: float) -> str:
    """Give a number as people read it: four digits."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
