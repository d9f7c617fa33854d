"""Sources, quality control, splits and the inputs that methods see."""
