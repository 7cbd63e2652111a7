"""The shared core: what the data job, the trainer and the predictor must agree on."""
