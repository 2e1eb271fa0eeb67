"""The metrics bring nothing heavy along, for use in other projects."""

import subprocess
import sys


def test_the_metrics_come_without_torch_pyro_and_matplotlib():
    code = "import bayes_panns.metrics; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = shown.stdout.split()
    assert not {"torch", "pyro", "matplotlib", "torchaudio", "sklearn", "pydantic", "h5py"} & set(modules)
    assert not shown.stderr


def test_importing_the_metrics_changes_nothing_global():
    code = (
        "import os, warnings, numpy as np, matplotlib, random\n"
        "def state():\n"
        "    return (dict(matplotlib.rcParams), np.geterr(), np.get_printoptions(), list(warnings.filters),\n"
        "            random.getstate(), str(np.random.get_state()))\n"
        "import scipy.special\n"
        "before = state()\n"
        "import bayes_panns.metrics, bayes_panns.metrics.plotting\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
