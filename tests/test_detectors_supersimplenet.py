"""SuperSimpleNet's scores: what an engine's rounding of a logit does to them."""

from __future__ import annotations

import pytest
import torch

from pyimgano.detectors.supersimplenet import _surprise


@pytest.mark.parametrize("logit", [-12.0, -6.0, 0.0, 6.0])
def test_the_rounding_of_a_logit_stays_well_below_the_tolerance(logit: float) -> None:
    rounding = 1.2e-5  # measured between torch and onnxruntime
    exact = _surprise(torch.tensor([logit], dtype=torch.float64))
    rounded = _surprise(torch.tensor([logit + rounding], dtype=torch.float64))
    assert float((rounded / exact - 1).abs()) < 5e-6


def test_a_surer_logit_is_a_higher_surprise() -> None:
    rising = _surprise(torch.linspace(-20, 20, 50))
    assert (rising > 0).all()
    assert (rising.diff() > 0).all()
