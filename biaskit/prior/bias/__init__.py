"""The positional bias in a prior: measures with confidence intervals, and a verdict. Arithmetic on maps; no drawing, no calibration."""
