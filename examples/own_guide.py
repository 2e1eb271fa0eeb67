"""A guide of your own: a function that takes the model and returns any Pyro guide, named on the command line.

    cd examples
    bayes-panns pretrain scratch --data clips.h5 --guide own_guide:low_rank_head -o runs/own
    bayes-panns predict runs/own recording.wav --guide own_guide:low_rank_head

The module is a file in the current folder, here this one, or an installed module. It is code, and is run only where you
name it: every command that opens such a posterior needs ``--guide`` again.
"""

from pyro import poutine
from pyro.infer.autoguide import AutoGuideList, AutoLowRankMultivariateNormal, AutoNormal, init_to_value

from bayes_panns.bayes import BayesianNet


def auto_normal(model: BayesianNet) -> AutoNormal:
    """Pyro's own mean-field guide, started from the network's initial weights."""
    return AutoNormal(model, init_loc_fn=init_to_value(values=model.initial), init_scale=0.01)


def low_rank_head(model: BayesianNet) -> AutoGuideList:
    """A joint posterior of low rank over the last layer, where weights trade off, and mean-field elsewhere."""
    head = list(model.head_sites)
    rest = [site for site in model.sites if site not in head]
    start = init_to_value(values=model.initial)
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=rest), init_loc_fn=start, init_scale=0.01))
    guide.append(
        AutoLowRankMultivariateNormal(poutine.block(model, expose=head), init_loc_fn=start, init_scale=0.01, rank=4)
    )
    return guide
