"""SIPOTrainer on tiny random models, against TRL's DPOTrainer and losses computed by hand."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from support.text import language_model, mixture_of_experts, preferences, tokenizer
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer

from sipo.text.trainer import SIPOConfig, SIPOTrainer

ARGUMENTS = {
    "use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True, "logging_steps": 1, "max_steps": 1,
    "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "save_strategy": "no", "optim": "sgd",
    "lr_scheduler_type": "constant", "learning_rate": 0.1, "max_grad_norm": 1e9, "beta": 0.3,
}  # fmt: skip


def trainer(
    folder: Path, model=None, ref_model=None, data: Dataset | None = None, others=None, **changed
) -> SIPOTrainer:
    """A trainer of random model 0 against another random model, so that ratios and weights are not trivial."""
    return SIPOTrainer(
        language_model(0) if model is None else model,
        language_model(1) if ref_model is None else ref_model or None,
        SIPOConfig(str(folder), **(ARGUMENTS | changed)),
        train_dataset=preferences() if data is None else data,
        processing_class=tokenizer(),
        **(others or {}),
    )


def weights(model) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def token_ratios(model, ref_model, prompt: str, answer: str) -> Tensor:
    """log p_theta / p_ref of the answer's tokens and its end, from plain logits, without a batch or padding."""
    ids = torch.tensor([tokenizer()(prompt + answer + "<eos>")["input_ids"]])
    found = []
    for each in (model, ref_model):
        log_p = each(ids).logits[0, :-1].log_softmax(-1)
        found.append(log_p.gather(1, ids[0, 1:, None])[:, 0][len(prompt) - 1 :])
    return found[0] - found[1].detach()


def by_hand(model, ref_model, rows: list[dict], unit: str, e: float, tau: float, beta: float) -> Tensor:
    losses = []
    for row in rows:
        r_w, r_l = (token_ratios(model, ref_model, row["prompt"], row[side]) for side in ("chosen", "rejected"))
        if unit == "sequence":
            w = [r.mean().exp() for r in (r_w, r_l)]
            wi = torch.maximum(*((1 / x).clamp(1 - e, 1 + e) for x in w))
            losses.append(-logsigmoid(beta * wi * (r_w.sum() - r_l.sum())) * (min(w) >= tau))
        else:
            s = [((-r).exp().clamp(1 - e, 1 + e) * r)[r.exp() >= tau].sum() for r in (r_w, r_l)]
            losses.append(-logsigmoid(beta * (s[0] - s[1])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("unit", ["token", "sequence"])
@pytest.mark.parametrize("tau", [0.0, 0.95])
def test_one_step_is_that_of_a_loss_by_hand(tmp_path, unit, tau):
    """Loss and weights after a step of plain gradient descent, from other lengths in a batch and a collator's padding."""
    rows = preferences(4)
    made = trainer(tmp_path, data=rows, unit=unit, clip_range=0.2, prune_threshold=tau)
    model, ref_model = language_model(0), language_model(1)
    loss = by_hand(model, ref_model, rows.to_list(), unit, 0.2, tau, 0.3)
    loss.backward()
    made.train()
    logged = made.state.log_history[0]
    assert abs(logged["loss"] - loss.item()) < 1e-5
    if tau:
        assert 0 < logged["sipo/pruned"] < 1
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(made.model.get_parameter(name).detach(), (parameter - 0.1 * parameter.grad).detach())


@pytest.mark.parametrize("unit", ["token", "sequence"])
def test_without_clip_range_and_threshold_it_trains_as_dpo_trainer_does(tmp_path, unit):
    """TRL's own trainer with its sigmoid loss: losses, metrics and weights of four steps over two epochs."""
    ours = trainer(tmp_path, clip_range=0.0, prune_threshold=0.0, unit=unit, max_steps=4)
    config = DPOConfig(str(tmp_path), **(ARGUMENTS | {"max_steps": 4}))
    theirs = DPOTrainer(
        language_model(0), language_model(1), config, train_dataset=preferences(), processing_class=tokenizer()
    )
    for each in (ours, theirs):
        each.train()
    for a, b in zip(ours.state.log_history[:4], theirs.state.log_history[:4], strict=True):
        assert set(a) - set(b) == {"sipo/weight", "sipo/pruned", "sipo/clipped"}
        assert {name: a[name] for name in b} == pytest.approx(b, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(weights(ours.model), weights(theirs.model))


def test_lora_is_trained_against_the_base(tmp_path):
    """TRL runs one model twice then, the second time without the adapter."""
    base = language_model(0)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    made = trainer(tmp_path, base, False, preferences(4), {"peft_config": lora}, clip_range=0.2, prune_threshold=0.0)
    policy = made.model.eval()
    loss = by_hand(policy, language_model(0), preferences(4).to_list(), "sequence", 0.2, 0.0, 0.3)
    made.train()
    logged = made.state.log_history[0]
    assert abs(logged["loss"] - loss.item()) < 1e-5
    assert logged["rewards/margins"] != 0
    base_now = {k.replace("base_model.model.", "").replace(".base_layer", ""): v for k, v in weights(policy).items()}
    assert all(base_now[name].equal(value) for name, value in weights(language_model(0)).items())


def test_the_auxiliary_loss_of_a_mixture_of_experts_is_added_as_in_trl(tmp_path):
    logged = []
    for factor in (0.0, 0.5):
        made = trainer(tmp_path, mixture_of_experts(0), mixture_of_experts(1), router_aux_loss_coef=factor)
        made.train()
        logged.append(made.state.log_history[0])
    assert logged[1]["aux_loss"] > 0
    assert logged[1]["loss"] == pytest.approx(logged[0]["loss"] + 0.5 * logged[1]["aux_loss"], abs=1e-4)


def test_gradient_accumulation_is_one_batch(tmp_path):
    """Losses are means over pairs, pruned ones included, so the parts of a batch weigh the same."""
    found = []
    for size, parts in ((4, 1), (2, 2)):
        made = trainer(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=parts)
        made.train()
        found.append((made.state.log_history[0]["sipo/pruned"], weights(made.model)))
    assert found[0][0] > 0
    torch.testing.assert_close(*found)


def test_evaluation_is_the_same_loss(tmp_path):
    made = trainer(tmp_path, unit="token", others={"eval_dataset": preferences(4)})
    expected = by_hand(language_model(0), language_model(1), preferences(4).to_list(), "token", 0.1, 0.9, 0.3)
    found = made.evaluate()
    assert abs(found["eval_loss"] - expected.item()) < 1e-5
    assert 0 < found["eval_sipo/pruned"] < 1
    assert not made.model._forward_hooks


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    def run(folder: str, max_steps: int, resume: bool) -> SIPOTrainer:
        made = trainer(tmp_path / folder, max_steps=max_steps, optim="adamw_torch", learning_rate=1e-3,
                       save_strategy="steps", save_steps=2)  # fmt: skip
        made.train(resume_from_checkpoint=resume)
        return made

    straight = run("straight", 5, False)
    run("killed", 2, False)
    resumed = run("killed", 5, True)
    assert resumed.state.global_step == 5
    assert all(value.equal(weights(straight.model)[name]) for name, value in weights(resumed.model).items())
    straight_log, resumed_log = (
        [line["loss"] for line in each.state.log_history if "loss" in line] for each in (straight, resumed)
    )
    assert resumed_log == straight_log


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss_type": "ipo"}, r"loss_type is \['ipo'\], not \['sigmoid'\]"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1]}, "loss_type is .*; loss_weights is"),
        ({"ld_alpha": 0.5}, "ld_alpha"),
        ({"f_divergence_type": "forward_kl"}, "f_divergence_type"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"use_weighting": True}, "use_weighting"),
        ({"discopop_tau": 0.1}, "discopop_tau"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs"),
        ({"unit": "word"}, "unit is 'word'"),
        ({"clip_range": 1.0}, "clip_range is 1.0"),
        ({"prune_threshold": -1.0}, "prune_threshold is -1.0"),
        ({"beta": 0.0}, "beta is 0.0"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path, fields, said):
    with pytest.raises(ValueError, match=said):
        SIPOConfig(str(tmp_path), **(ARGUMENTS | fields))


def test_another_config_is_refused(tmp_path):
    for args, name in ((DPOConfig(str(tmp_path), use_cpu=True, bf16=False), "DPOConfig"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"args is a {name}"):
            SIPOTrainer(language_model(0), language_model(1), args, train_dataset=preferences())


def test_a_version_of_trl_that_runs_other_models_is_noticed(tmp_path, monkeypatch):
    """What stands for it: a compute_loss that does not run the reference."""
    made = trainer(tmp_path)
    monkeypatch.setattr(DPOTrainer, "compute_loss", lambda self, model, inputs, *others: torch.zeros(()))
    with pytest.raises(RuntimeError, match="found 0"):
        made.train()
