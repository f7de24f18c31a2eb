"""Which test pictures a report shows, and their heat maps: mistakes first."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.decode import decode_bytes, read_image
from pyimgano_runtime.errors import BundleError, DatasetError, ImageError
from pyimgano_runtime.infer_config import Golden, InputRules
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.thresholds import is_anomaly

from ..datasets.images import Image, read_mask, shrunk
from ..datasets.rows import ManifestRow
from .heat_scale import HeatScale
from .overview_facts import InspectedPart, score_text
from .overview_gallery import Group
from .picture_drawing import jpeg, jpeg_uri, ringed
from .report_facts import Card, CardGroup, Gallery

MAX_SIDE: Final = 320  # pixels
JPEG_QUALITY: Final = 85
SPREAD_ORDER: Final = "from the whole range of scores, highest first"
SAME_SCORE_REL: Final = 1e-3  # a GPU and a CPU may differ by this share of a score


def choose_pictures(
    parts: Sequence[InspectedPart], threshold: float, at_most: int
) -> list[Group]:
    """Give the groups of the gallery: what was missed and flagged wrongly comes first.

    Mistakes take half of the places, or more where the others leave them free; of
    them the worst are shown, of the others some from the whole range of scores.
    """

    def falling(verdict: str) -> list[InspectedPart]:
        chosen = [part for part in parts if part.verdict == verdict]
        return sorted(chosen, key=lambda part: (-part.score, part.name))

    missed, alarms = falling("missed")[::-1], falling("false alarm")
    found, accepted = falling("found"), falling("accepted")
    n_wrong, n_right = len(missed) + len(alarms), len(found) + len(accepted)
    places = min(n_wrong, max(-(-at_most // 2), at_most - n_right))
    n_missed, n_alarms = _shares(places, len(missed), len(alarms))
    n_found, n_accepted = _shares(at_most - places, len(found), len(accepted))
    groups = [
        Group(
            "Missed: defective, but accepted",
            "lowest score first",
            tuple(missed[:n_missed]),
            len(missed),
        ),
        Group(
            "False alarms: good, but flagged",
            "highest score first",
            tuple(alarms[:n_alarms]),
            len(alarms),
        ),
        Group(
            "Found: defective, and flagged",
            SPREAD_ORDER,
            _spread(found, n_found),
            len(found),
        ),
        Group(
            "Accepted: good, and not flagged",
            SPREAD_ORDER,
            _spread(accepted, n_accepted),
            len(accepted),
        ),
    ]
    return [group for group in groups if group.parts]


def _shares(places: int, first: int, second: int) -> tuple[int, int]:
    """Give two groups half of the places each; what one leaves free the other takes."""
    to_first = min(first, max(-(-places // 2), places - second))
    return to_first, min(second, places - to_first)


def _spread(ordered: Sequence[InspectedPart], count: int) -> tuple[InspectedPart, ...]:
    """Give so many from the first to the last, evenly."""
    if count <= 0:
        return ()
    at = np.linspace(0, len(ordered) - 1, min(count, len(ordered)))
    return tuple(ordered[place] for place in at.round().astype(int))


def draw_gallery(
    groups: Sequence[Group],
    rows: Mapping[str, ManifestRow],
    rules: InputRules,
    predictor: Predictor | None,
    *,
    note: str | None = None,
    progress: Callable[[int, int], None],
) -> Gallery:
    """Read the chosen pictures again and draw them; those that are gone are counted.

    Args:
        rows: where the pictures are, by their names.
        predictor: gives the heat maps; None: there are none.
        note: what is known to be missing.
    """
    total = sum(len(group.parts) for group in groups)
    done = 0
    drawn = []
    for group in groups:
        cards = []
        for part in group.parts:
            cards.append(_card(part, rows.get(part.name), rules, predictor))
            done += 1
            progress(done, total)
        drawn.append(CardGroup(group.title, group.order, group.n_all, tuple(cards)))
    gone = sum(card.photo is None for group in drawn for card in group.cards)
    notes = [note] if note else []
    if gone:
        notes.append(
            f"{gone} of the {total} pictures chosen here could not be read any more "
            "at the place that the run recorded; what was said of them still stands."
        )
    return Gallery(tuple(drawn), " ".join(notes) or None)


def _card(
    part: InspectedPart,
    row: ManifestRow | None,
    rules: InputRules,
    predictor: Predictor | None,
) -> Card:
    photo = heat = note = None
    has_truth = False
    try:
        image = None if row is None else read_image(row.image_path, rules)
    except ImageError:
        image = None
    if row is not None and image is not None:
        photo, has_truth = _photo(image, row, rules)
        if predictor is not None:
            heat, note = _heat(image, part, predictor)
    return Card(
        title=part.name,
        kind=part.kind,
        verdict=part.verdict,
        wrong=part.wrong,
        score=part.score,
        p_value=part.p_value,
        photo=photo,
        heat=heat,
        has_truth=has_truth,
        note=note if photo else "the picture could not be read",
    )


def _photo(image: Image, row: ManifestRow, rules: InputRules) -> tuple[str, bool]:
    size = (image.shape[0], image.shape[1])
    mask = None
    if row.label == 1:
        try:
            mask = read_mask(row.mask_path, size, rules, above=row.mask_above)
        except DatasetError:
            mask = None  # the mask is gone or was changed: no ring
    return _uri(image if mask is None else ringed(image, mask)), mask is not None


def _heat(
    image: Image, part: InspectedPart, predictor: Predictor
) -> tuple[str | None, str | None]:
    """Give the heat map, and a note where the picture is not the one of the run."""
    try:
        prediction = predictor.predict(image)
    except ImageError as error:
        return None, f"no heat map: {error.code}"
    note = None
    apart = abs(prediction.score - part.score)
    if apart > SAME_SCORE_REL * max(abs(prediction.score), abs(part.score)):
        note = (
            f"today it scores {score_text(prediction.score)}: picture or model changed "
            "since the run"
        )
    if prediction.anomaly_map is None:
        return None, note
    scale = HeatScale.of(predictor.settings, predictor.threshold)
    heat = scale.over(image, prediction.anomaly_map, mode=prediction.map_mode)
    return _uri(heat), note


def _uri(image: Image) -> str:
    return jpeg_uri(jpeg(shrunk(image, MAX_SIDE), JPEG_QUALITY))


# --- goldens ------------------------------------------------------------------------


def golden_gallery(bundle: Bundle, category: str) -> Gallery:
    """Give the goldens of a category of a bundle, with the maps that torch gave.

    Raises:
        BundleError: a golden was changed, or cannot be read.
    """
    goldens = [g for g in bundle.config.parity.goldens if g.category == category]
    if not goldens:
        return Gallery(note="This bundle holds no pictures.")
    real = any(golden.kind == "real" for golden in goldens)
    cards = tuple(
        sorted(
            (_golden_card(bundle, golden) for golden in goldens),
            key=lambda card: -card.score,
        )
    )
    group = CardGroup(
        "Control pictures of the bundle (goldens)",
        "highest score first",
        len(cards),
        cards,
    )
    return Gallery((group,), photographs=real)


def _golden_card(bundle: Bundle, golden: Golden) -> Card:
    settings = bundle.config.categories[golden.category]
    try:
        image = decode_bytes(
            bundle.read(golden.image), bundle.config.input, name=golden.image
        )
        heat = None
        if golden.map is not None and settings.map_geometry is not None:
            stored = np.load(io.BytesIO(bundle.read(golden.map)), allow_pickle=False)
            if not np.isfinite(stored).all():
                raise ValueError("its map holds NaN or infinity")
            scale = HeatScale.of(settings)
            mode = settings.map_geometry.mode
            heat = _uri(scale.over(image, stored.astype(np.float32), mode=mode))
    except (ImageError, ValueError, EOFError) as error:
        raise BundleError(
            f"{bundle.root}: its golden {golden.image} cannot be shown ({error}); "
            "export the bundle again"
        ) from error
    flagged = is_anomaly(golden.score, settings.thresholds.image)
    return Card(
        title=golden.image,
        kind="drawn picture" if golden.kind == "synthetic" else "photograph",
        verdict="flagged" if flagged else "accepted",
        wrong=False,
        score=golden.score,
        p_value=None,
        photo=_uri(image),
        heat=heat,
        has_truth=False,
    )
