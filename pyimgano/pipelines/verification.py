"""The judgement about a bundle: findings, one line each, and the numbers of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pyimgano_runtime.check import CheckReport

from ..command_errors import EXIT_FAILED, EXIT_REFUSED

VERIFY_SCHEMA_VERSION: Final = "1.0"

Verdict = Literal["ok", "warning", "FAILED"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the judgement."""

    verdict: Verdict
    what: str  # "document", "file", "graph", "goldens", "parity", ...
    details: str
    exit_code: int = 0  # of a FAILED one: 1 it disagrees, 2 it is refused

    def to_json(self) -> dict[str, Any]:
        """Give the finding as a JSON object."""
        return {"verdict": self.verdict, "what": self.what, "details": self.details}


@dataclass(slots=True)
class Verification:
    """All findings about a bundle, and the numbers behind them."""

    bundle: str
    run: str | None = None  # the folder it is compared with
    sha256: str | None = None  # of infer_config.json; None: it could not be read
    findings: list[Finding] = field(default_factory=list)
    check: CheckReport | None = None
    parity: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 released; 1 a score disagrees; 2 the bundle is refused."""
        return max((finding.exit_code for finding in self.findings), default=0)

    @property
    def failed(self) -> list[Finding]:
        """What stands in the way of a release."""
        return [finding for finding in self.findings if finding.exit_code]

    def ok(self, what: str, details: str) -> None:
        """Note something that is as it should be."""
        self.findings.append(Finding("ok", what, details))

    def warn(self, what: str, details: str) -> None:
        """Note something that a person should know."""
        self.findings.append(Finding("warning", what, details))

    def refuse(self, what: str, details: str) -> None:
        """Note why the bundle is refused."""
        self.findings.append(Finding("FAILED", what, details, EXIT_REFUSED))

    def disagree(self, what: str, details: str) -> None:
        """Note scores that are not those of the trained model."""
        self.findings.append(Finding("FAILED", what, details, EXIT_FAILED))

    def to_json(self) -> dict[str, Any]:
        """Give the judgement as a JSON object."""
        return {
            "schema_version": VERIFY_SCHEMA_VERSION,
            "bundle": self.bundle,
            "run": self.run,
            "sha256": self.sha256,
            "ok": not self.failed,
            "exit_code": self.exit_code,
            "findings": [finding.to_json() for finding in self.findings],
            "goldens": None if self.check is None else self.check.to_json(),
            "parity": self.parity,
        }
