"""Files to waveforms to log-mel spectrograms; augmentation; synthetic soundscapes."""
