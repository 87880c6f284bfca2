"""Statistics over seeds: everything is paired by seed, and every figure's docstring says what it is and where from."""

from layerwise.statistics.changes import Change, in_words, paired_change
from layerwise.statistics.estimates import (
    CONFIDENCE,
    Description,
    bootstrap_interval,
    describe,
    interquartile_mean,
    sd,
    t_interval,
)
from layerwise.statistics.paired import (
    Share,
    effect_size,
    pairing_correlation,
    probability_above,
    rate_difference,
    share,
)
from layerwise.statistics.power import (
    equivalence_power,
    fewest_seeds,
    mcnemar_power,
    mean_power,
    ordered_power,
    rate_power,
    sd_ratio_power,
)
from layerwise.statistics.significance import (
    Alternative,
    difference_beyond,
    equivalence,
    exact_rate,
    holm,
    mcnemar,
    mean_test,
    sign_flip,
    wilcoxon,
)
from layerwise.statistics.spread import sd_ratio, sd_ratio_interval, sd_ratio_test
from layerwise.statistics.summary import OUTCOMES, intact, scores, summarise
from layerwise.statistics.trends import OrderedTrend, ordered_trend, slopes

__all__ = [
    "CONFIDENCE", "OUTCOMES", "Alternative", "Change", "Description", "OrderedTrend", "Share", "bootstrap_interval",
    "describe", "difference_beyond", "effect_size", "equivalence", "equivalence_power", "exact_rate", "fewest_seeds",
    "holm", "in_words", "intact", "interquartile_mean", "mcnemar", "mcnemar_power", "mean_power", "mean_test",
    "ordered_power", "ordered_trend", "paired_change", "pairing_correlation", "probability_above", "rate_difference",
    "rate_power", "scores", "sd", "sd_ratio", "sd_ratio_interval", "sd_ratio_power", "sd_ratio_test", "share",
    "sign_flip", "slopes", "summarise", "t_interval", "wilcoxon",
]  # fmt: skip
