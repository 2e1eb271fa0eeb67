"""Names that are imported when they are first used."""

import subprocess
import sys

import pytest

from bayes_panns import report
from bayes_panns.core.lazy import imported_when_used
from bayes_panns.report import text


@pytest.mark.parametrize("package", [report, text])
def test_every_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    get = imported_when_used("bayes_panns.core", {"bayes_panns.core.errors": ["AudioError"]})
    assert get("AudioError").__name__ == "AudioError"
    with pytest.raises(AttributeError, match=r"'bayes_panns.core' has no attribute 'nothing'"):
        get("nothing")


def test_a_prediction_starts_without_what_it_does_not_need():
    code = (
        "import sys; import bayes_panns.posterior, bayes_panns.predictions; "
        "from bayes_panns.report import render_tags; "
        "print(sorted({'matplotlib', 'sklearn', 'pandas', 'bayes_panns.jobs', 'scipy.stats'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
