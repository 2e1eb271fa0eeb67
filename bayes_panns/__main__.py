"""``python -m bayes_panns``: the same as the command ``bayes-panns``, such as for ``torchrun -m``."""

from bayes_panns.cli import main

if __name__ == "__main__":
    main(prog_name="bayes-panns")
