"""Whole strategies: replay from a distilled memory, and training from scratch on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from avalanche.training.plugins import GDumbPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from typing_extensions import Unpack

from ddplug.avalanche.options import MemoryOptions, SharedKeywords, shows_memory_options
from ddplug.avalanche.plugin import DistilledReplayPlugin, make_policy, refuse_latent, update
from ddplug.avalanche.replay import Augment, augmented, check_augment, repeat_to_size, resolved
from ddplug.errors import unknown
from ddplug.utils.randomness import nth_generator

__all__ = ["DistilledGDumb", "DistilledReplay"]

_CROSS_ENTROPY = nn.CrossEntropyLoss()


class StrategyKeywords(SharedKeywords, total=False):
    """What a strategy takes besides its own arguments: options of the memory, and of Avalanche's template."""

    peval_mode: str


@shows_memory_options
class DistilledReplay(SupervisedTemplate):
    """Experience replay from a distilled memory.

    After each experience its data are distilled into a few synthetic samples a class, which are replayed with a loss of
    their own from then on; see :class:`~ddplug.avalanche.plugin.DistilledReplayPlugin`, which this strategy wraps.
    Follows Rosasco et al., "Distilled Replay: Overcoming Forgetting through Synthetic Samples", 2021
    (https://arxiv.org/abs/2103.15851), with any distiller of ddplug and a weighted loss instead of mixed batches.

    Task labels are used where the stream has them: to keep the classes of tasks apart, and by multi-head models.

    Example:
        >>> from io import StringIO
        >>> from avalanche.benchmarks import nc_benchmark
        >>> from avalanche.logging import TextLogger
        >>> from avalanche.models import SimpleMLP
        >>> from avalanche.training.plugins import EvaluationPlugin
        >>> from ddplug.testing import toy_images
        >>> toy = toy_images((12, 12, 12, 12))
        >>> data = torch.utils.data.TensorDataset(toy.inputs / 255, toy.targets)
        >>> data.targets = toy.targets.tolist()
        >>> model = SimpleMLP(input_size=64, num_classes=4, hidden_size=16)
        >>> strategy = DistilledReplay(
        ...     model=model,
        ...     optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        ...     mem_size=4,
        ...     distiller="class-mean",
        ...     train_mb_size=8,
        ...     evaluator=EvaluationPlugin(loggers=[TextLogger(StringIO())]),
        ... )
        >>> for experience in nc_benchmark(data, data, n_experiences=2, task_labels=False).train_stream:
        ...     metrics = strategy.train(experience)
        >>> len(strategy.storage_policy.buffer)
        4
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Any = _CROSS_ENTROPY,
        mem_size: int | None = None,
        mem_bytes: int | str | None = None,
        storage_policy: Any = None,
        mode: str = "loss",
        batch_size_mem: int | None = None,
        weight: str | float = "experiences",
        translate: str | float = "auto",
        augment: Augment = "auto",
        batch_norm: str = "update",
        finetune_steps: int | str = "auto",
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: Any = default_evaluator,
        eval_every: int = -1,
        **base_kwargs: Unpack[StrategyKeywords],
    ) -> None:
        """Make the strategy.

        :param model: the model.
        :param optimizer: the optimizer.
        :param criterion: the loss; soft labels of the memory are met by a cross-entropy of their own.
        :param mem_size: the memory may take the bytes of so many images, at a byte a number; 200 unless ``mem_bytes``
            is given.
        :param mem_bytes: bytes of the memory instead, also as ``"8kB"``.
        :param storage_policy: a memory to use instead of a new distilled one.
        :param mode: ``"loss"`` for a loss of its own, ``"batch"`` for mixed batches.
        :param batch_size_mem: memory rows a step; None for what suits the memory, see the plugin.
        :param weight: of the memory's loss: ``"experiences"``, ``"classes"`` or a number.
        :param translate: strength of moving memory rows as the present classes vary, or ``"auto"``.
        :param augment: operations or a function for each memory row, ``"stream"`` for the stream's own training
            transforms, ``""`` for none, or ``"auto"`` for what suits the shape, in the fine-tuning alone.
        :param batch_norm: ``"update"`` or ``"keep"`` running statistics when memory rows pass.
        :param finetune_steps: steps on the memory alone after each experience, or ``"auto"``.
        :param train_mb_size: mini-batch size for training.
        :param train_epochs: epochs an experience.
        :param eval_mb_size: mini-batch size for evaluation; ``train_mb_size`` if None.
        :param device: of the model.
        :param plugins: more plugins; the list is copied. They come before the replay.
        :param evaluator: metrics and loggers.
        :param eval_every: epochs between evaluations; 0 for one after each experience, -1 for none.
        :param base_kwargs: fields of :class:`~ddplug.avalanche.options.MemoryOptions` for the new memory, with ``seed``
            for every draw from it too; and options of Avalanche's template.

        :raises OptionError: an option is unknown or outside its range.
        """
        memory, rest = _split(base_kwargs)
        plugin = DistilledReplayPlugin(
            mem_size,
            mem_bytes=mem_bytes,
            storage_policy=storage_policy,
            mode=mode,
            batch_size_mem=batch_size_mem,
            weight=weight,
            translate=translate,
            augment=augment,
            batch_norm=batch_norm,
            finetune_steps=finetune_steps,
            **memory,
        )
        self.storage_policy = plugin.storage_policy
        """The memory."""
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[*(plugins or ()), plugin],
            evaluator=evaluator,
            eval_every=eval_every,
            **rest,
        )


@shows_memory_options
class DistilledGDumb(SupervisedTemplate):
    """Training from scratch on a distilled memory of everything seen.

    Before each experience its data are distilled into the memory; then the model is set back to its first weights and
    trained on the memory alone, repeated to fill at least one batch. Follows Prabhu et al., "GDumb: A Simple Approach
    that Questions Our Progress in Continual Learning", ECCV 2020, with distilled samples in the place of real ones.

    Task labels are used where the stream has them: to keep the classes of tasks apart, and by multi-head models.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Any = _CROSS_ENTROPY,
        mem_size: int | None = None,
        mem_bytes: int | str | None = None,
        storage_policy: Any = None,
        augment: Augment = "",
        learning_rate: str | None = None,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: Any = default_evaluator,
        eval_every: int = -1,
        **base_kwargs: Unpack[StrategyKeywords],
    ) -> None:
        """Make the strategy.

        :param model: the model; its weights at the first experience are those it is set back to.
        :param optimizer: the optimizer; its state is forgotten with the weights.
        :param criterion: the loss, on hard labels.
        :param mem_size: the memory may take the bytes of so many images, at a byte a number; 200 unless ``mem_bytes``
            is given.
        :param mem_bytes: bytes of the memory instead, also as ``"8kB"``.
        :param storage_policy: a memory to use instead of a new distilled one.
        :param augment: operations drawn for each sample of a batch, ``"auto"`` or ``""``, a function of one, or
            ``"stream"`` for the stream's own training transforms.
        :param learning_rate: None keeps the optimizer's own; ``"recipe"`` trains at the rate of the memory's recipe,
            for distillers that learn it with the images. The optimizer's own comes back after each experience.
        :param train_mb_size: mini-batch size for training.
        :param train_epochs: passes over the memory an experience.
        :param eval_mb_size: mini-batch size for evaluation; ``train_mb_size`` if None.
        :param device: of the model.
        :param plugins: more plugins; the list is copied. They come before this strategy's own.
        :param evaluator: metrics and loggers.
        :param eval_every: epochs between evaluations; 0 for one after each experience, -1 for none.
        :param base_kwargs: fields of :class:`~ddplug.avalanche.options.MemoryOptions` for the new memory, with ``seed``
            for every draw from it too; and options of Avalanche's template.

        :raises OptionError: an option is unknown or outside its range.
        """
        memory, rest = _split(base_kwargs)
        self.storage_policy = make_policy(storage_policy, mem_size, mem_bytes, memory)
        """The memory."""
        refuse_latent(self.storage_policy, "training from scratch, which moves all layers")
        plugin = _FromScratch(self.storage_policy, augment, learning_rate, memory.get("seed", 0))
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[*(plugins or ()), plugin],
            evaluator=evaluator,
            eval_every=eval_every,
            **rest,
        )


class _FromScratch(GDumbPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """The stock plugin, which sets the model back, with our memory, augmentation and learning rate."""

    def __init__(self, policy: Any, augment: Augment, learning_rate: str | None, seed: int) -> None:
        check_augment(augment)
        if learning_rate not in ("recipe", None):
            raise unknown("learning_rate", str(learning_rate), ("recipe", "None"))
        super().__init__()
        self.storage_policy = policy
        self.augment = augment
        self.learning_rate = learning_rate
        self.seed = seed
        self._experiences = 0
        self._rng: torch.Generator | None = None
        self._variation: Augment = ""
        self._rates: list[float] = []

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Put the experience into the memory, and train on that."""
        update(self.storage_policy, strategy, **kwargs)
        strategy.adapted_dataset = repeat_to_size(self.storage_policy.buffer, strategy.train_mb_size)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set the learning rate."""
        self._experiences += 1
        self._rng = nth_generator(self.seed, self._experiences)
        dataset = strategy.experience.dataset
        if len(strategy.adapted_dataset):
            self._variation = resolved(self.augment, tuple(strategy.adapted_dataset[0][0].shape), dataset)
        recipe = getattr(self.storage_policy, "recipe", None) if self.learning_rate else None
        self._rates = []
        if recipe is not None:
            groups = strategy.optimizer.param_groups
            self._rates = [group["lr"] for group in groups]
            for group in groups:
                group["lr"] = recipe.learning_rate

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Augment the batch."""
        if self._rng is not None:
            x = strategy.mbatch[0]
            strategy.mbatch[0] = augmented(x, self._variation, self._rng)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Return the optimizer its own learning rate back."""
        for group, rate in zip(strategy.optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate
        self._rng, self._variation = None, ""


def _split(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the options of the memory from those of the template."""
    memory = {name: value for name, value in keywords.items() if name in MemoryOptions.names()}
    return memory, {name: value for name, value in keywords.items() if name not in memory}
