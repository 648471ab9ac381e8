"""The parts of benches/accuracy/run."""
