"""From clips of one's own to a posterior: the plan, what it costs and what to know, and carrying it out."""

from bayes_panns.jobs.learning.cost import Cost, Foundation
from bayes_panns.jobs.learning.plan import Plan, make_plan
from bayes_panns.jobs.learning.remarks import LabelCount
from bayes_panns.jobs.learning.run import BASELINE, Learned, carry_out

__all__ = ["BASELINE", "Cost", "Foundation", "LabelCount", "Learned", "Plan", "carry_out", "make_plan"]
