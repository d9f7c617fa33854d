"""Fits that take long, cut short: what they read and return is the same."""

QUICK = {
    "scvi": {"max_epochs": 2},
    "scanvi": {"pretrain_max_epochs": 2, "max_epochs": 2},
    "more": {"steps": 10},
    "more_sup": {"steps": 10},
    "more_doublets": {"steps": 10},
    "scgpt_scratch": {"steps": 4},
    "concord": {"n_epochs": 2},
    "concord_class": {"n_epochs": 2},
}
