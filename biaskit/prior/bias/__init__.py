"""What a prior says about a model: measures with intervals, a verdict."""
