"""Random forest on principal components or genes, an annotator without a linear boundary."""

from __future__ import annotations

import pandas as pd

from morebench.contract import MethodInput, MethodOutput
from morebench.methods.logreg import shown_labels
from morebench.methods.spaces import read_space


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    space: str,
    n_components: int,
    n_estimators: int,
    max_depth: int | None,
    max_features: str | int | float | None,
    class_weight: str | None,
) -> MethodOutput:
    """Fit a random forest on the cells whose label is shown; label every cell.

    Parameters
    ----------
    data
        The split's input, with ``labels``.
    seed
        ``random_state``: of the cells that each tree draws and of the features that each of
        its splits may use.
    threads
        ``n_jobs`` of the fit; the forest does not depend on it.
    space
        ``pca`` or ``hvg``, see ``spaces.py``. A tree depends on the order of values only, so
        nothing is scaled.
    n_components
        Leading principal components to use; ``hvg`` has none.
    n_estimators, max_depth, max_features, class_weight
        Parameters of ``sklearn.ensemble.RandomForestClassifier``; its others keep their
        documented defaults.

    Returns
    -------
    MethodOutput
        ``probabilities`` (n, classes shown), columns sorted: the mean over trees of the class
        shares in a cell's leaf; ``labels`` (n,), the most probable class, the first by name of
        equals; ``parameters_trained``: the thresholds of all splits and the class shares of
        all leaves; ``notes`` with the cells fitted on and the deepest tree.

    Raises
    ------
    ContractError
        No labels were given at all.
    DataError
        Fewer than two classes are shown, or fewer components are there than asked for.
    ConfigError
        There is no such space.

    Notes
    -----
    Breiman 2001, Machine Learning 45, 5-32.
    """
    from sklearn.ensemble import RandomForestClassifier

    rows, shown = shown_labels(data, data.fit_visible, "forest")
    x_nd = read_space(data, space, n_components)
    forest = RandomForestClassifier(
        n_estimators=n_estimators,
        max_depth=max_depth,
        max_features=max_features,
        class_weight=class_weight,
        n_jobs=threads,
        random_state=seed,
    )
    forest.fit(x_nd[rows], shown)
    # threads add up the trees in the order in which they end, and so decide ties
    forest.set_params(n_jobs=1)
    values = forest.predict_proba(x_nd)
    n_leaves = sum(int(tree.get_n_leaves()) for tree in forest.estimators_)
    n_nodes = sum(int(tree.tree_.node_count) for tree in forest.estimators_)
    return MethodOutput(
        labels=forest.classes_[values.argmax(axis=1)].astype(str),
        probabilities=pd.DataFrame(values, index=data.cell_ids, columns=forest.classes_),
        parameters_trained=n_nodes - n_leaves + n_leaves * len(forest.classes_),
        notes={
            "n_fitted": len(rows),
            "depth": max(int(tree.get_depth()) for tree in forest.estimators_),
        },
    )
