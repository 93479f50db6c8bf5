"""How well models do, with intervals: from counts of decisions and what came of them.

`edges` says where scores are cut into bins, `counts` holds what each bin holds, `from_bins` makes
figures of it, `intervals` and `bootstrap` say how sure they are, `card_precision` looks at cards by
the day, `estimate` does without outcomes. `cohorts` says which decisions count, and as what;
`evaluator` does all of it for every version, now and then; `metrics` shows it to Prometheus.

numpy and nothing larger: the serving process imports this. docs/quality.md has the definitions.
"""

from server.feedback.quality.edges import score_edges
from server.feedback.quality.evaluator import Evaluator
from server.feedback.quality.facts import VersionFacts, bundle_facts
from server.feedback.quality.reports import QualityMetric, QualityReport, ScoreBin

__all__ = [
    "Evaluator",
    "QualityMetric",
    "QualityReport",
    "ScoreBin",
    "VersionFacts",
    "bundle_facts",
    "score_edges",
]
