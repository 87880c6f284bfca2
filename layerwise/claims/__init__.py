"""Deciding what a study claims, and planning how many seeds that takes."""

from layerwise.claims.columns import Outcomes
from layerwise.claims.deciding import Verdict, Verdicts, decide, should_stop
from layerwise.claims.evidence import Evidence
from layerwise.claims.planning import power_curve, undecidable

__all__ = ["Evidence", "Outcomes", "Verdict", "Verdicts", "decide", "power_curve", "should_stop", "undecidable"]
