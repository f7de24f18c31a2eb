"""The drift report: one HTML file with everything in it, no script, no network."""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING, Final

from ._version import __version__
from .drift import (
    BRIGHTNESS,
    SCORE,
    SHARPNESS,
    DriftReading,
    StatisticReading,
    can_judge,
)
from .drift_charts import histogram, timeline
from .drift_words import DRIFT, STABLE, Verdict, count_of, shown, verdict_of

if TYPE_CHECKING:
    from .bundle import Bundle

_TITLES: Final = {
    SCORE: (
        "Score",
        "How unusual the model finds a picture. Higher is more anomalous.",
    ),
    BRIGHTNESS: ("Brightness", "Mean grey level of a picture, 0 black to 255 white."),
    SHARPNESS: (
        "Sharpness",
        "How strongly neighbouring points differ. Higher is sharper, or noisier.",
    ),
}
_STATES: Final = {DRIFT: ("drift", "Drift"), STABLE: ("stable", "No drift")}
_TESTS: Final = {
    "shift": "shift of the mean",
    "psi": "stability index (PSI)",
    "ks": "distance of scores (KS)",
}

_STYLE: Final = """
:root { --ink: #1d2733; --soft: #5b6773; --line: #d5dbe1; --ground: #f4f6f8;
  --then: #a9b4bf; --now: #1f6fb2; --alarm: #b3400b; --score: #1f6fb2;
  --brightness: #a65f00; --sharpness: #5a7d22; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 20px 16px 40px; color: var(--ink);
  background: var(--ground); font: 15px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 0; }
p { margin: 6px 0; } .soft { color: var(--soft); }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 16px; min-width: 0; }
.verdict { margin: 16px 0; border-left: 8px solid var(--then); }
.verdict.drift { border-left-color: var(--alarm); }
.verdict.stable { border-left-color: #3c8a3f; }
.verdict h2 { font-size: 20px; } .verdict li { margin: 8px 0; }
.verdict ul { padding-left: 20px; margin: 8px 0 0; }
.cards { display: grid; gap: 16px; margin: 16px 0;
  grid-template-columns: repeat(auto-fit, minmax(min(310px, 100%), 1fr)); }
.head { display: flex; justify-content: space-between; align-items: baseline;
  gap: 8px; }
.chip { border-radius: 10px; padding: 1px 9px; font-size: 13px; white-space: nowrap;
  background: #e3efe3; color: #23602a; }
.chip.drift { background: #fbe6dc; color: #8d2f04; }
.chip.open { background: #e8ebee; color: var(--soft); }
svg { display: block; width: 100%; max-width: 560px; height: auto; margin: 8px 0 2px; }
svg text { font-size: 11px; fill: var(--soft); }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .axis, svg .tick { fill: none; stroke: var(--soft); stroke-width: 1; }
.then { fill: var(--then); } .now { fill: var(--now); }
.drifts .now { fill: var(--alarm); }
.key { display: inline-block; width: 11px; height: 11px; margin: 0 4px 0 10px; }
.key.then { background: var(--then); margin-left: 0; }
.key.now { background: var(--now); }
.drifts .key.now { background: var(--alarm); }
.line { fill: none; stroke-width: 1.8; }
.limit { fill: none; stroke-width: 1; stroke-dasharray: 4 4; opacity: .7; }
.line.score, .limit.score { stroke: var(--score); }
.line.brightness, .limit.brightness { stroke: var(--brightness); }
.line.sharpness, .limit.sharpness { stroke: var(--sharpness); }
circle.score, svg text.score { fill: var(--score); }
circle.brightness, svg text.brightness { fill: var(--brightness); }
circle.sharpness, svg text.sharpness { fill: var(--sharpness); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 3px 8px 3px 0; border-top: 1px solid var(--line);
  font-weight: normal; vertical-align: top; }
thead th { border-top: 0; color: var(--soft); }
tr.above td { color: #8d2f04; font-weight: 600; }
"""

_PAGE: Final = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drift of $category</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<h1>Drift of $category</h1>
<p class="soft">$about</p>
<section class="card verdict $state">
<h2>$verdict</h2>
<p>$headline</p>
$findings
</section>
$note
<section class="cards">
$cards
</section>
$timeline
<section class="card">
<h2>How to read this page</h2>
<p>Training noted how the scores of good parts lay, and how bright and sharp their
pictures were. The last pictures are compared with that. The ranges below each histogram
hold about equally many pictures of training, so without drift the coloured bars are as
high as the grey ones, but for chance.</p>
<p>An alarm means that the difference is too large for chance, and large enough to
matter. It does not mean that a part is bad, and no alarm does not mean that all parts
are good. Without drift fewer than one window in a hundred raises an alarm; a change of
product or lot is drift too. Up to one defective part in twenty raises none.</p>
<p>A shift of one unit is the spread (standard deviation) of the training pictures, but
at least 4 grey levels of brightness or a tenth of the mean sharpness. PSI and KS
compare whole histograms: 0 is equal.</p>
</section>
<p class="soft">pyimgano-runtime $version. This page loads nothing from the network.</p>
</body>
</html>
""")


def drift_page(
    category: str,
    reading: DriftReading,
    *,
    bundle: Bundle | None = None,
    note: str = "",
    written: str = "",
) -> str:
    """Give the page of a reading.

    Args:
        category: of what.
        bundle: which one judged, for people.
        note: what could not be compared, in words.
        written: when, for people.
    """
    verdict = verdict_of(reading)
    state, title = _STATES.get(verdict.state, ("open", "Not judged"))
    return _PAGE.substitute(
        style=_STYLE,
        category=escape(category),
        about=escape(_about(bundle, reading, written)),
        state=state,
        verdict=title,
        headline=escape(verdict.headline),
        findings=_findings(verdict),
        note=f'<section class="card"><p>{escape(note)}</p></section>' if note else "",
        cards="\n".join(
            _card(name, reading.statistics[name])
            for name in _TITLES
            if name in reading.statistics
        ),
        timeline=_timeline(reading),
        version=__version__,
    )


def _about(bundle: Bundle | None, reading: DriftReading, written: str) -> str:
    seen = count_of(reading.pictures, "scored picture")
    parts = [f"The last {reading.window:,} of {seen}"]
    if bundle is not None:
        info = bundle.config.bundle
        parts.append(
            f"bundle {info.name} {info.version}, sha256 {bundle.sha256[:12]}..."
        )
    if written:
        parts.append(f"written {written}")
    return "; ".join(parts) + "."


def _findings(verdict: Verdict) -> str:
    lines = [
        f"<li><strong>{escape(seen)}</strong><br>{escape(advice)}</li>"
        for seen, advice in verdict.findings
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _card(name: str, found: StatisticReading) -> str:
    title, meaning = _TITLES[name]
    chip, word = ("drift", "drift") if found.alarms else ("", "no drift")
    reference, n = found.reference, sum(found.counts)
    judged = can_judge(reference, n)
    if not judged:
        chip, word = "open", "not judged"
    origin = "calibration" if name == SCORE else "training"
    change = f"{found.mean - reference.mean:+.3g}"
    return f"""<article class="card{" drifts" if found.alarms else ""}">
<div class="head"><h2>{title}</h2><span class="chip {chip}">{word}</span></div>
<p class="soft">{meaning}</p>
<p>{shown(found.mean)} on average now, {shown(reference.mean)} in {origin}
({change}).</p>
{histogram(name, found)}
<p class="soft"><span class="key then"></span>{origin},
{count_of(reference.n, "picture")}
<span class="key now"></span>now, {count_of(n, "picture")}</p>
<table><thead><tr><th>test</th><th>found</th><th>alarm above</th></tr></thead>
<tbody>{_tests(found, judged=judged)}</tbody></table>
</article>"""


def _tests(found: StatisticReading, *, judged: bool) -> str:
    rows = [
        ("shift", f"{found.shift:+.2f} units", f"{found.shift_limit:.2f} either way"),
        ("psi", f"{found.psi:.2f}", f"{found.psi_limit:.2f}"),
    ]
    if found.ks is not None and found.ks_limit is not None:
        rows.append(("ks", f"{found.ks:.2f}", f"{found.ks_limit:.2f}"))
    return "".join(
        f"<tr{' class=above' if test in found.alarms else ''}><td>{_TESTS[test]}</td>"
        f"<td>{value}</td><td>{limit if judged else 'not judged'}</td></tr>"
        for test, value, limit in rows
    )


def _timeline(reading: DriftReading) -> str:
    if len(reading.timeline) < 2:
        return ""
    return f"""<section class="card">
<h2>Since the start</h2>
<p class="soft">The stability index (PSI) of the last pictures at each time: 0 is as in
training. Dashed: above it is an alarm.</p>
{timeline(reading)}
</section>
<br>"""
