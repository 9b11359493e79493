"""What a prior says about a model: measures with intervals, a verdict. Arithmetic on maps; nothing is drawn or calibrated here."""
