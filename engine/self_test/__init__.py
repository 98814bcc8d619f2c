"""The self-test that a model file carries: written with the file, run where the file runs."""
