"""Gates: numbers that a report must reach, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pyimgano_runtime.errors import ConfigError, raise_all

from ..metrics.report_keys import ReportKey, parse_assignment, value_of


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit of one report key."""

    key: ReportKey
    bound: Literal["min", "max"]
    limit: float


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a gate found."""

    where: str  # category, and engine where there are several
    key: str
    bound: str
    limit: float
    value: float | None  # None: not measured, so not met
    met: bool
    reason: str | None = None  # why it was not measured

    def to_json(self) -> dict[str, Any]:
        """Give it as a JSON object."""
        return asdict(self)

    @property
    def words(self) -> str:
        """One sentence for people."""
        sign = {"min": "at least", "max": "at most"}.get(self.bound, self.bound)
        found = "not measured" if self.value is None else f"{self.value:.6g}"
        if self.reason is not None:
            found += f" ({self.reason})"
        verdict = "met" if self.met else "MISSED"
        return (
            f"{self.where}: {self.key} {found}, asked {sign} {self.limit:g}: {verdict}"
        )


def parse_gates(minima: Sequence[str], maxima: Sequence[str]) -> tuple[Gate, ...]:
    """Give the gates of `--min KEY=NUMBER` and `--max KEY=NUMBER`.

    Raises:
        ConfigError: an unknown key or no number, a key twice; all at once.
    """
    gates: list[Gate] = []
    problems: list[str] = []
    given: tuple[tuple[Literal["min", "max"], Sequence[str]], ...] = (
        ("min", minima),
        ("max", maxima),
    )
    for bound, texts in given:
        for text in texts:
            try:
                key, limit = parse_assignment(text, f"--{bound}")
            except ConfigError as error:
                problems.append(str(error))
                continue
            wrong = "max" if key.better == "higher" else "min"
            if bound == wrong:
                right = "min" if bound == "max" else "max"
                problems.append(
                    f"--{bound} {key.name}: is better when {key.better}, so this would "
                    f"let the worst through; give --{right} {key.name}={limit:g}"
                )
            if any(gate.key == key and gate.bound == bound for gate in gates):
                problems.append(f"--{bound} {key.name}: given twice; keep one")
            gates.append(Gate(key, bound, limit))
    raise_all(problems)
    return tuple(gates)


def judge(
    gates: Sequence[Gate], report: Mapping[str, Any], *, where: str
) -> list[GateResult]:
    """Hold one report's numbers against the gates; what was not measured is missed."""
    results = []
    for gate in gates:
        value = value_of(report, gate.key.name)
        met = value is not None and (
            value >= gate.limit if gate.bound == "min" else value <= gate.limit
        )
        reasons = report.get("reasons") or {}
        reason = reasons.get(gate.key.name) if value is None else None
        results.append(
            GateResult(where, gate.key.name, gate.bound, gate.limit, value, met, reason)
        )
    return results


def judge_benchmark(
    gates: Sequence[Gate], report: Mapping[str, Any]
) -> list[GateResult]:
    """Judge every category of a benchmark by the engines that ship.

    Those are the ONNX ones; torch only where it ran alone.
    """
    results = []
    for name, category in report["categories"].items():
        engines = category["engines"]
        missing = category["engines_missing"]
        results += [
            GateResult(
                *(f"{name} ({engine})", gate.key.name, gate.bound, gate.limit),
                *(None, False, reason),
            )
            for engine, reason in missing.items()
            for gate in gates
        ]
        shipped = [engine for engine in engines if engine != "torch"]
        for engine in shipped or (list(engines) if not missing else []):
            numbers = {"fit_seconds": category["fit_seconds"]} | engines[engine]
            results += judge(gates, numbers, where=f"{name} ({engine})")
    return results
