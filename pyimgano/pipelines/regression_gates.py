"""`--fail-on-regression METRIC=DELTA`: how much worse a candidate may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyimgano_runtime.errors import ConfigError, raise_all

from ..metrics.report_keys import ReportKey, parse_assignment, value_of

OPTION: Final = "--fail-on-regression"
ROUNDING: Final = 1e-12  # 0.9 - 0.8 is 0.1 and a bit: of doubles near 1, 2e-16 each


@dataclass(frozen=True, slots=True)
class RegressionGate:
    """How much worse than the reference a number may be, in its own unit."""

    key: ReportKey
    allowed: float

    def judge(
        self, category: str, a: Mapping[str, Any], b: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Hold B's numbers of a category against A's; `b` None: B lacks the category.

        `met` is None where A has no number, so that nothing can have become worse.
        """
        before = value_of(a, self.key.name)
        now = None if b is None else value_of(b, self.key.name)
        worse_by = None
        if before is not None and now is not None:
            worse_by = before - now if self.key.better == "higher" else now - before
        return {
            "category": category,
            "key": self.key.name,
            "allowed": self.allowed,
            "a": before,
            "b": now,
            "worse_by": worse_by,
            "met": (
                None
                if before is None
                else worse_by is not None and worse_by <= self.allowed + ROUNDING
            ),
            "reason": _reason(before, now, b is None),
        }


def parse_regression_gates(texts: Sequence[str]) -> tuple[RegressionGate, ...]:
    """Give the gates of `--fail-on-regression METRIC=DELTA`.

    Raises:
        ConfigError: an unknown metric, no number of at least 0, a metric twice; all at
            once.
    """
    gates: list[RegressionGate] = []
    problems = []
    for text in texts:
        try:
            key, allowed = parse_assignment(text, OPTION)
        except ConfigError as error:
            problems.append(str(error))
            continue
        if allowed < 0:
            problems.append(
                f"{OPTION} {key.name}: found {allowed:g}, expected how much worse it "
                "may be, at least 0"
            )
        if any(gate.key == key for gate in gates):
            problems.append(f"{OPTION} {key.name}: given twice; keep one")
        gates.append(RegressionGate(key, allowed))
    raise_all(problems)
    return tuple(gates)


def refuse_idle_gates(results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse gates that judged nothing: they would let everything pass.

    Raises:
        ConfigError: A has a gate's number in no category.
    """
    judged = {result["key"] for result in results if result["met"] is not None}
    idle = dict.fromkeys(r["key"] for r in results if r["key"] not in judged)
    raise_all(
        f"{OPTION} {name}: A has no such number in any category, so nothing could be "
        "judged; name another metric, or measure it in A"
        for name in idle
    )


def _reason(before: float | None, now: float | None, is_lost: bool) -> str | None:
    if before is None:
        return "A has no such number"
    if is_lost:
        return "B has no such category"
    return "not measured in B" if now is None else None
