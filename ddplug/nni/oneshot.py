"""One-shot search on a set through NNI's Lightning evaluator, with parts that are made anew for every search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import nni
import torch
from nni.nas.evaluator import MutableEvaluator
from nni.nas.evaluator.pytorch import Lightning, SupervisedLearningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy

from ddplug.evaluation.train import rate_at, steps_of
from ddplug.functional import augmentation as augment
from ddplug.nni.paths import normal_path
from ddplug.search.protocol import Protocol
from ddplug.search.sets import check_pair, load_set, widened
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.devices import pick_device
from ddplug.utils.randomness import temporary_seed

__all__ = ["OneShotEvaluator", "SetLoader"]


class SetLoader:
    """Batches of a set as Lightning takes them, with the recipe's augmentation; no processes, no global randomness.

    Args:
        data: the set; hard or soft labels.
        batch_size: samples a batch; the last one may have fewer.
        strategy: operations of :mod:`ddplug.functional.augmentation` joined by ``_``; ``""`` for none.
        channels: number of times to repeat a grey channel; ``None`` leaves inputs alone.
        rng: generator on the CPU for an order of its own at each pass and for the augmentation; ``None`` keeps the
            order and augments nothing.

    Raises:
        OptionError: an operation is unknown or the inputs do not suit it or ``channels``.

    Example:
        >>> from ddplug.distillation.loop import distill
        >>> from ddplug.testing import toy_images
        >>> loader = SetLoader(distill(toy_images((12, 11)), "random", device="cpu"), 16)
        >>> [tuple(x.shape) for x, y in loader]
        [(16, 1, 8, 8), (4, 1, 8, 8)]
    """

    def __init__(
        self,
        data: SyntheticSet,
        batch_size: int,
        *,
        strategy: str = "",
        channels: int | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        augment.check(strategy, data.shape)
        widened(data[:1][0], channels)
        self.data = data
        self.batch_size = batch_size
        self.strategy = strategy
        self.channels = channels
        self.rng = rng

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.data)
        order = torch.arange(n) if self.rng is None else torch.randperm(n, generator=self.rng)
        for index in order.split(self.batch_size):
            x, y = self.data[index]
            if self.rng is not None:
                x = augment.augment(x, self.strategy, self.rng)
            yield widened(x, self.channels), y


class _Accuracy(MulticlassAccuracy):
    """Accuracy also on soft labels, of which the most probable class counts."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds, target if target.ndim == 1 else target.argmax(1))


class _RecipeModule(SupervisedLearningModule):
    """Trains as a recipe says, its schedule taken by the epoch."""

    def __init__(self, num_classes: int, recipe: Recipe) -> None:
        super().__init__(
            nn.CrossEntropyLoss,
            {"acc": _Accuracy(num_classes, average="micro")},
            recipe.learning_rate,
            export_onnx=False,
        )
        self.recipe = recipe

    def configure_optimizers(self) -> dict[str, Any]:
        recipe = self.recipe
        optimizer = torch.optim.SGD(
            self.parameters(), recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        relative = replace(recipe, learning_rate=1.0)
        drop = recipe.epochs // 2 + 1
        return {
            "optimizer": optimizer,
            "lr_scheduler": LambdaLR(optimizer, lambda epoch: rate_at(relative, epoch, recipe.epochs, drop)),
        }


@nni.trace
class OneShotEvaluator(Lightning):
    """NNI's Lightning evaluator on set files, for one-shot strategies: weights learn on the set.

    DARTS and its kin train the architecture on the validation split in turn, and an epoch is then as long as the longer
    of the two. NNI's own evaluators keep one trainer and one module, which a second model or search finds used up;
    here both, and the loaders, are made anew each time they are asked for. Soft labels are taken as they are.

    Args:
        train: file of the set, or of any other :class:`~ddplug.synthetic.SyntheticSet`.
        validation: file of real data with hard labels in the model space of the set, as ``ddplug holdout`` cuts off.
        epochs: passes over the set; the recipe's own if not given; 0 trains nothing and scores, as is done with the
            members of a supernet that is trained.
        learning_rate: of SGD; the recipe's own if not given, as the four that follow.
        batch_size: samples a step, of both files.
        momentum: of SGD.
        weight_decay: of SGD.
        augment: operations of :mod:`ddplug.functional.augmentation` joined by ``_``; ``""`` for none.
        channels: number of times to repeat a grey channel, for spaces whose stems take three.
        seed: of the order of the samples, the augmentation and, where no one-shot strategy is at work, the weights.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        OptionError: a file cannot be read, or an option is out of range or does not suit the set.
        DataError: the two files do not fit together.
        FormatError: a file holds no set.
    """

    def __init__(
        self,
        train: str,
        validation: str,
        *,
        epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        augment: str | None = None,
        channels: int | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        # not Lightning's own __init__, which takes the parts that are made anew here
        self.files = normal_path(train, "train"), normal_path(validation, "validation")
        self.scores_only = epochs == 0
        self.protocol = Protocol(
            epochs=epochs or None,
            learning_rate=learning_rate,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
            augment=augment,
            channels=channels,
            seed=seed,
            device=device,
        )
        self.accelerator = "gpu" if pick_device(device).type == "cuda" else "cpu"
        self.datamodule = None
        self.fit_kwargs: dict[str, Any] = {}
        self.detect_interrupt = True
        check_pair(*map(load_set, self.files))
        self._loader(train=True)

    @property
    def recipe(self) -> Recipe:
        """How it trains, by passes over the set: as many as its steps make, where it counts these."""
        made = load_set(self.files[0])
        own = self.protocol.recipe(made.recipe)
        passes = -(-steps_of(own, len(made)) // -(-len(made) // own.batch_size))
        return replace(own, epochs=passes, steps=0)

    @property
    def module(self) -> Any:
        """A new Lightning module."""
        return _RecipeModule(load_set(self.files[0]).num_classes, self.recipe)

    @property
    def trainer(self) -> Any:
        """A new Lightning trainer, which writes nothing."""
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        return Trainer(
            max_epochs=self.recipe.epochs,
            accelerator=self.accelerator,
            devices=1,
            num_sanity_val_steps=0,
            **dict.fromkeys(quiet, False),
        )

    def _loader(self, train: bool) -> SetLoader:
        recipe, channels = self.recipe, self.protocol.channels
        made, validation = map(load_set, self.files)
        if not train:
            return SetLoader(validation.in_order_of(made.class_names), recipe.batch_size, channels=channels)
        rng = torch.Generator().manual_seed(self.protocol.seed)
        return SetLoader(made, recipe.batch_size, strategy=recipe.augment, channels=channels, rng=rng)

    @property
    def train_dataloaders(self) -> SetLoader | None:
        """New batches of the set; ``None`` where nothing is trained."""
        return None if self.scores_only else self._loader(train=True)

    @property
    def val_dataloaders(self) -> SetLoader:
        """New batches of the validation split."""
        return self._loader(train=False)

    def _execute(self, model: Any) -> Any:
        with temporary_seed(self.protocol.seed, pick_device(self.protocol.device)):
            return super()._execute(model)

    def evaluate(self, model: Any) -> float:
        """Train a network and score it, with parts of its own.

        Args:
            model: a network, of which the weights are trained as they are.

        Returns:
            Accuracy on the validation split, in [0, 1].
        """
        trainer = self.trainer
        Lightning(self.module, trainer, self.train_dataloaders, self.val_dataloaders).evaluate(model)
        return float(trainer.callback_metrics["val_acc"])

    def __eq__(self, other: object) -> bool:
        same: bool = MutableEvaluator.__eq__(self, other)
        return same

    def __repr__(self) -> str:
        train, validation = self.files
        return f"{type(self).__name__}({train!r}, {validation!r}, {self.protocol})"
