"""Every setting of MoRE, with its ablation switches; the same ones serve every dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from morebench.errors import ConfigError, listed

LIKELIHOODS = ("gaussian", "nb")
FUSIONS = ("adaptive", "mean")
LOSS_WEIGHTS = ("fixed", "learned")


@dataclass(frozen=True)
class Settings:
    """Settings of MoRE. Switches: a weight of 0, a T of 0, or False leaves a module out.

    Attributes
    ----------
    backbone
        ``minilm``, ``random``, ``none``, or a Hugging Face encoder by folder or hub id, which
        ``@`` and a hash may pin.
    n_tokens
        Features of a cell that the backbone reads, k.
    n_components
        Dimensions of the expression branch.
    spectrum, feature_spectrum
        Power of the components' standard deviations that the expression branch and the
        frozen features keep: 1 leaves them as they are, 0 gives all the same.
    noise_weight
        How much less a gene counts in the expression branch for the noise of its log values
        (``fit_expression``): 0 leaves it out.
    shrink
        Shrink the expression branch's components by what noise adds to their variance.
    features, structure
        Whether the branch takes part.
    structure_steps
        Steps of propagation on the cell graph, one resolution each.
    n_latent, n_hidden, dropout
        Width d of the embedding; width of the adapters' bottleneck; its dropout.
    fusion
        ``adaptive`` weights (eq. 7), or the plain ``mean`` of the branches.
    refine_steps
        T of eq. 8; 0 leaves refinement out.
    axes, axes_power, axes_batches
        Whether the embedding of a model without labels is given out along the axes that
        tell prototypes apart; the power of their contrast; how many times over what is left
        between batches inside prototypes counts as noise.
    mask
        Share of a branch's coordinates that are hidden in training.
    batch_dropout
        Share of training cells whose batch is treated as one never seen.
    modality_dropout
        Share of training cells that lose one of their modalities.
    likelihood
        Of the reconstruction: ``gaussian`` (log values) or ``nb`` (counts).
    w_reconstruction, w_dense, w_means, w_prototype, w_sparse, w_modalities
        Weights of masked reconstruction; of matching batches' distributions over all cells,
        their means, and their distributions within prototypes; of mutual nearest
        neighbours; of modality alignment.
    w_classes, w_contrast, w_compact
        Weights of cross-entropy, supervised contrast and intra-class variance (eq. 9).
    loss_weights
        ``fixed``, or ``learned`` by homoscedastic uncertainty around these weights.
    n_prototypes, n_pairs, temperature
        Prototypes of the dense alignment; neighbours of a mutual pair; of the contrasts.
    steps, batch_size, learning_rate, weight_decay
        Of the optimiser; ``steps`` is a least number, see ``min_epochs``.
    min_epochs
        Passes over the cells that training takes at least.
    """

    backbone: str = "minilm"
    n_tokens: int = 16
    n_components: int = 30
    spectrum: float = 0.75
    feature_spectrum: float = 0.5
    noise_weight: float = 2.0
    shrink: bool = False
    features: bool = True
    structure: bool = False
    structure_steps: tuple[int, ...] = (2,)
    n_latent: int = 48
    n_hidden: int = 128
    dropout: float = 0.1
    fusion: str = "adaptive"
    refine_steps: int = 3
    axes: bool = True
    axes_power: float = 0.25
    axes_batches: float = 3.0
    mask: float = 0.1
    batch_dropout: float = 0.05
    modality_dropout: float = 0.2
    likelihood: str = "gaussian"
    w_reconstruction: float = 3.0
    w_dense: float = 0.0
    w_means: float = 5.0
    w_prototype: float = 1.0
    w_sparse: float = 0.2
    w_modalities: float = 0.1
    w_classes: float = 0.5
    w_contrast: float = 0.2
    w_compact: float = 0.1
    loss_weights: str = "fixed"
    n_prototypes: int = 30
    n_pairs: int = 5
    temperature: float = 0.1
    steps: int = 300
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    min_epochs: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, with the key, the value found and what is valid."""
        self._check_types()
        for key, valid in (
            ("likelihood", LIKELIHOODS),
            ("fusion", FUSIONS),
            ("loss_weights", LOSS_WEIGHTS),
        ):
            if getattr(self, key) not in valid:
                raise ConfigError(f"{key}: found {getattr(self, key)!r}; valid: {listed(valid)}")
        object.__setattr__(self, "structure_steps", tuple(self.structure_steps))
        for key, value in asdict(self).items():
            if isinstance(value, bool | str | tuple):
                continue
            if not value >= 0:
                raise ConfigError(f"{key}: found {value}; valid: 0 or more")
            if key in ("dropout", "mask", "batch_dropout", "modality_dropout") and value >= 1:
                raise ConfigError(f"{key}: found {value}; valid: a share below 1")
        least = {"n_components": 2, "n_latent": 2, "n_hidden": 1, "steps": 1, "batch_size": 8}
        for key, low in {**least, "n_tokens": 1, "n_pairs": 1, "n_prototypes": 2}.items():
            if getattr(self, key) < low:
                raise ConfigError(f"{key}: found {getattr(self, key)}; valid: {low} or more")
        if self.temperature <= 0:
            raise ConfigError(f"temperature: found {self.temperature}; valid: above 0")
        weights = [key for key in asdict(self) if key.startswith("w_")]
        if not any(getattr(self, key) for key in weights):
            raise ConfigError(f"{listed(weights)}: found all 0; valid: one of them above 0")

    def _check_types(self) -> None:
        for field in fields(self):
            value, valid = getattr(self, field.name), type(field.default)
            if valid is tuple:
                steps = tuple(value) if isinstance(value, tuple | list) else ()
                whole = all(isinstance(s, int) and not isinstance(s, bool) for s in steps)
                if not steps or not whole or min(steps) < 1:
                    raise ConfigError(
                        f"{field.name}: found {value!r}; valid: one or more numbers, each 1 or more"
                    )
                continue
            number = isinstance(value, int) and not isinstance(value, bool)
            if not (isinstance(value, valid) and (number or valid is not int)) and not (
                valid is float and number
            ):
                raise ConfigError(f"{field.name}: found {value!r}; valid: {valid.__name__}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {**asdict(self), "structure_steps": list(self.structure_steps)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings of a mapping; a key that is no setting is an error."""
        valid = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(valid))
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}; valid: {listed(valid, 60)}")
        return cls(**values)

    @property
    def uses_backbone(self) -> bool:
        """Whether frozen features take part."""
        return self.features and self.backbone != "none"
