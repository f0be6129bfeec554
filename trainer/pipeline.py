"""Every job of the trainer, top to bottom: set up -> reward -> learn -> gate -> publish."""

from __future__ import annotations

import time
from dataclasses import replace

from storage import versions
from storage.database import Database
from storage.records import Sampling, Version
from storage.wording import counted
from trainer.acquiring import ask_to_compare
from trainer.asking import answers_to_rate, store
from trainer.config import Control, DeviceConfig, GateConfig, PolicyStage
from trainer.evaluation import suites
from trainer.evaluation.gate import judge
from trainer.evaluation.items import Item
from trainer.evaluation.no_worse import suite_gates
from trainer.evaluation.seen import in_words
from trainer.job import HeldJob
from trainer.methods.method import Learned, Method, Result
from trainer.policy import probe
from trainer.publishing import finish
from trainer.reward.mixture import model_of
from trainer.rewards import obtain
from trainer.setting import set_up
from trainer.task import Task


def work(held: HeldJob, method: Method, config: DeviceConfig) -> Result:
    """Do a job: learn a policy by its method, or what the method does instead."""
    if method.work is not None:
        return method.work(held, config)
    assert isinstance(config, PolicyStage), "what is learned is a policy"
    return train(held, method, config)


def train(held: HeldJob, method: Method, config: PolicyStage) -> Result:
    """Learn a policy: a new version, or the one that an earlier attempt made just before it was ended."""

    def made() -> Version | None:
        return next((version for version in versions.every(held.database) if version.job_id == held.job.id), None)

    found = held.share(made)
    if found:
        return _result(found, found.metrics)
    assert method.learn is not None
    asked_of_suites(config.gate)  # what is misspelled is told before anything is learned
    setting = set_up(held, config)
    task = Task(held, config, setting, obtain(held, config, setting))
    clocks = time.monotonic(), time.process_time()
    learned = method.learn(task)
    wall, busy = time.monotonic() - clocks[0], time.process_time() - clocks[1]
    # Of a job that was interrupted they would tell its last piece alone.
    took = {} if held.resuming else {"learning": {"seconds": wall, "processor_seconds": busy}}
    return _finish(task, method, learned) | took


def _finish(task: Task[PolicyStage], method: Method, learned: Learned) -> Result:
    """Through the gate, and published or kept as rejected."""
    held, config, setting, learner = task.held, task.config, task.setting, learned.learner
    if learned.remark:
        held.say(learned.remark)
    held.progress("gate", learner.step, learner.steps)
    own = method.section(config)  # what samples itself is judged as it practised
    sampling = Sampling(temperature=getattr(own, "temperature", 1.0), max_new_tokens=setting.answer_tokens)
    candidate = learner.result()
    report = judge(
        setting.backbone,
        task.rewards.judge if task.rewards else None,
        candidate,
        setting.start,
        setting.split.held_out,
        config.gate,
        sampling,
        learned.loss_gain,
        task.watch.measure(learner.policy) if method.watched else None,
        control=config.control,
        penalty=getattr(own, "missing_eos_penalty", 0.0),
        check=held.check,
    )
    if items := asked_of_suites(config.gate):
        more = suite_gates(setting.backbone, candidate, setting.start, items, held.check)
        report = replace(report, gates=[*report.gates, *more])
    held.progress("publish", learner.step, learner.steps)
    # Where the weights are split among processes, all of them must put them together.
    answer = probe.take(setting.backbone.decoder(candidate), setting.backbone.tokenizer)
    # A control's answers would teach nothing that the base model's do not.
    count = config.ask if config.control == Control.NONE else 0
    reward = task.rewards.optimised if task.rewards else None
    asked = answers_to_rate(setting, candidate, reward, sampling, count, config.seed)

    def record(database: Database, name: str) -> None:
        store(database, name, sampling, asked)

    version = held.share(
        lambda: finish(
            held,
            candidate,
            report,
            setting,
            learner.step,
            answer,
            record,
            learned.critic,
            publish=config.publish,
            win_rate=config.gate.win_rate,
        )
    )
    held.drop_checkpoints()
    for gate in report.gates:
        held.say(f"  {'passed' if gate['passed'] else 'FAILED'}  {gate['gate']}: {gate['detail']}")
    for shown in report.metrics().get("answers", ()):
        held.say(in_words(shown))
    held.say(f"{version.name} is {version.state}")
    if asked:
        held.say(
            f"{counted(len(asked), 'of its answer waits', 'of its answers wait')} "
            "in Review: rated, they teach the next run"
        )
        ask_to_compare(held, setting, model_of(reward) if reward else None, config.seed)
    return _result(version, report.metrics()) | ({"remark": learned.remark} if learned.remark else {})


def asked_of_suites(gate: GateConfig) -> list[Item]:
    """The items of the suites that the gate asks about. Raises UsageError where there is no such suite."""
    names = [name.strip() for name in gate.suites.split(",")]
    return [] if names == ["none"] else suites.chosen(names)


def _result(version: Version, figures: Result) -> Result:
    return {
        "version": version.name,
        "state": str(version.state),
        "parent": version.parent,
        "gates": version.gates,
        **figures,
    }
