import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_cli.config import Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.model.architecture import find_architecture
from yolo_cli.model.build import DetectionModel
from yolo_cli.train.optim import (
    GROUPS,
    ModelEMA,
    Schedule,
    apply_settings,
    build_optimizer,
    freeze_layers,
    parameter_groups,
    set_train_mode,
)

HYP = Hyperparameters()


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    return DetectionModel(find_architecture("n").with_classes(3))


def test_every_parameter_is_in_one_group(model: DetectionModel) -> None:
    groups = parameter_groups(model)
    counted = [id(p) for group in groups.values() for p in group]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())
    assert all(p.ndim == 4 for p in groups["weights"])
    norms = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert {id(p) for p in groups["norms"]} == norms


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)]
)
@pytest.mark.parametrize(("batch", "factor"), [(16, 1.0), (64, 1.0), (128, 2.0), (48, 0.75)])
def test_weight_decay_applies_to_weights_only_and_scales_with_the_batch(
    model: DetectionModel, name: str, kind: type, batch: int, factor: float
) -> None:
    optimizer = build_optimizer(model, name, HYP, batch)
    assert type(optimizer) is kind
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == pytest.approx([HYP.weight_decay * factor, 0, 0])


def test_an_unknown_optimizer_is_refused(model: DetectionModel) -> None:
    with pytest.raises(UserError, match="SGD, Adam, AdamW"):
        build_optimizer(model, "LION", HYP, 16)


@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 128), st.booleans())
def test_the_schedule_starts_warm_up_and_ends_at_lrf(epochs: int, batches: int, batch: int, cosine: bool) -> None:
    schedule = Schedule(HYP, epochs, batches, batch, cosine)
    first = schedule.at(0)
    assert first.lrs == pytest.approx((0.0, 0.0, HYP.warmup_bias_lr))
    assert first.momentum == pytest.approx(HYP.warmup_momentum)
    assert first.accumulate == 1
    warm = schedule.at(schedule.warmup_steps)
    assert warm.momentum == pytest.approx(HYP.momentum)
    assert warm.accumulate == max(1, round(HYP.nominal_batch / batch))
    assert warm.lrs == pytest.approx((warm.lrs[0],) * 3)
    assert schedule.decay(0) == pytest.approx(1.0)
    assert schedule.decay(epochs) == pytest.approx(HYP.lrf)
    decays = [schedule.decay(e) for e in range(epochs + 1)]
    assert decays == sorted(decays, reverse=True)


def test_cosine_schedule_values() -> None:
    schedule = Schedule(replace(HYP, lrf=0.0), 100, 10, 64, cosine=True)
    assert schedule.decay(50) == pytest.approx(0.5)
    assert schedule.decay(25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_settings_are_applied_to_each_group(model: DetectionModel) -> None:
    settings = Schedule(HYP, 10, 100, 16).at(30)
    assert settings.momentum < HYP.momentum
    for name in ("SGD", "Adam", "AdamW"):
        optimizer = build_optimizer(model, name, HYP, 16)
        apply_settings(optimizer, settings)
        assert tuple(g["lr"] for g in optimizer.param_groups) == settings.lrs
        assert settings.lrs[GROUPS.index("biases")] > settings.lrs[GROUPS.index("weights")]
        if name == "SGD":
            assert all(g["momentum"] == settings.momentum for g in optimizer.param_groups)
        else:  # the bias correction assumes that beta1 is constant
            assert all(g["betas"] == (HYP.momentum, 0.999) for g in optimizer.param_groups)


def test_moving_average_formula(model: DetectionModel) -> None:
    ema = ModelEMA(model, decay=0.9, ramp=10)
    start = ema.model.state_dict()["model.0.conv.weight"].clone()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
        model.model[0].bn.num_batches_tracked += 5  # type: ignore[union-attr, operator]
    expected = start
    for n in (1, 2, 3):
        ema.update()
        d = 0.9 * (1 - math.exp(-n / 10))
        expected = expected * d + (start + 1.0) * (1 - d)
    torch.testing.assert_close(ema.model.state_dict()["model.0.conv.weight"], expected)
    assert ema.model.state_dict()["model.0.bn.num_batches_tracked"] == 5
    assert not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize(("layers", "frozen"), [((3,), {0, 1, 2}), ((0, 5), {0, 5}), ((), set())])
def test_freezing_by_number_or_by_list(layers: tuple[int, ...], frozen: set[int]) -> None:
    model = DetectionModel(find_architecture("n").with_classes(3))
    freeze_layers(model, layers)
    still = {int(name.split(".")[1]) for name, p in model.named_parameters() if not p.requires_grad}
    assert still == frozen


@pytest.mark.parametrize("synchronized", [False, True])
def test_frozen_layers_keep_their_batch_norm_statistics(synchronized: bool) -> None:
    model = DetectionModel(find_architecture("n").with_classes(3))
    if synchronized:
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    freeze_layers(model, (2,))
    set_train_mode(model, (2,))
    modes = {
        name: m.training for name, m in model.named_modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    }
    assert {name.split(".")[1] for name, mode in modes.items() if not mode} == {"0", "1"}
    assert all(m.training for name, m in model.named_modules() if name not in modes)
    if not synchronized:
        before = {name: b.clone() for name, b in model.named_buffers()}
        model(torch.rand(2, 3, 64, 64))
        moved = {name.split(".")[1] for name, b in model.named_buffers() if not torch.equal(before[name], b)}
        assert {"0", "1"}.isdisjoint(moved)
        assert "2" in moved
