"""What all other folders stand on: errors, the atomic writer, digests, strict JSON, choices and progress."""
