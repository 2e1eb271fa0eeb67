"""Speed and memory of this package beside named peers: ``python -m benchmarks --help``, from the checkout."""
