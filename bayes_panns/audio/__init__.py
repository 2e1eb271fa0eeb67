"""Sound files to waveforms to log-mel spectrograms, and augmentation."""
