"""Families that act: one environment, a ring of numpy arrays, torch's optimisers as they come, nothing looked at that
could be wrong. Each yields after each step of the environment."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SEED = 7


class Ring:
    """Transitions, the latest `size`; `action` is any one, for its shape and type."""

    def __init__(self, size: int, observation: int, action: Any) -> None:
        self.before, self.after = (np.zeros((size, observation), np.float32) for _ in range(2))
        self.action = np.zeros((size, *np.shape(action)), np.asarray(action).dtype)
        self.reward, self.discount, self.added = np.zeros(size, np.float32), np.zeros(size, np.float32), 0

    def add(self, *transition: Any) -> None:
        at = self.added % len(self.reward)
        for rows, value in zip(self._rows(), transition, strict=True):
            rows[at] = value
        self.added += 1

    def sample(self, count: int) -> list[torch.Tensor]:
        drawn = np.random.randint(0, min(self.added, len(self.reward)), count)
        return [torch.from_numpy(rows[drawn]) for rows in self._rows()]

    def _rows(self) -> tuple[Any, ...]:
        return self.before, self.action, self.reward, self.discount, self.after


def dqn(environment: Any, net: Any, settings: Any) -> Iterator[None]:
    target = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=0)
    x, _ = environment.reset(seed=SEED)
    ring, recent, updates = Ring(settings.replay, x.size, 0), deque[Any](), 0
    for step in itertools.count(1):
        share = max(settings.explore, 1 - (1 - settings.explore) * step / settings.explore_steps)
        if np.random.random() < share:
            action = int(environment.action_space.sample())
        else:
            with torch.no_grad():
                action = int(net(torch.from_numpy(x)[None]).argmax())
        after, reward, terminated, truncated, _ = environment.step(action)
        recent.append((x, action, reward))
        ended = terminated or truncated
        while recent and (ended or len(recent) == settings.look_ahead):
            total = sum(settings.gamma**k * each[2] for k, each in enumerate(recent))
            ring.add(*recent[0][:2], total, 0.0 if terminated else settings.gamma ** len(recent), after)
            recent.popleft()
        x = environment.reset()[0] if ended else after
        if step >= settings.warm_up and step % settings.update_every == 0:
            _update_values(net, target, optimizer, ring.sample(settings.batch_rows), settings)
            updates += 1
            if updates % settings.target_every == 0:
                target.load_state_dict(net.state_dict())
        yield


def _update_values(net: Any, target: Any, optimizer: Any, batch: list[torch.Tensor], settings: Any) -> None:
    before, action, reward, discount, after = batch
    with torch.no_grad():
        following = target(after)
        chosen = net(after) if settings.double else following
        wanted = reward + discount * following.gather(1, chosen.argmax(1, keepdim=True))[:, 0]
    q = net(before).gather(1, action[:, None])[:, 0]
    loss = functional.smooth_l1_loss(q, wanted)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
    optimizer.step()


def ddpg(environment: Any, net: Any, settings: Any) -> Iterator[None]:
    target = copy.deepcopy(net)
    actor = torch.optim.Adam(net.actor.parameters(), settings.actor_lr)
    critic = torch.optim.Adam(net.critic.parameters(), settings.critic_lr)
    x, _ = environment.reset(seed=SEED)
    x = x.astype(np.float32)  # some environments show float64
    ring = Ring(settings.replay, x.size, np.zeros(net.action, np.float32))
    for step in itertools.count(1):
        if step <= settings.warm_up:
            action = np.random.uniform(-1, 1, net.action).astype(np.float32)
        else:
            with torch.no_grad():
                action = net.actor(net.seen(torch.from_numpy(x)[None]))[0].numpy()
            action = (action + settings.noise * np.random.randn(net.action).astype(np.float32)).clip(-1, 1)
        space = environment.action_space
        told = space.low + (space.high - space.low) * (action.reshape(space.shape) / 2 + 0.5)
        after, reward, terminated, truncated, _ = environment.step(told.astype(space.dtype))
        after = after.astype(np.float32)
        ring.add(x, action, reward, 0.0 if terminated else settings.gamma, after)
        x = environment.reset()[0].astype(np.float32) if terminated or truncated else after
        if step > settings.warm_up:
            late = (step - settings.warm_up) % settings.delay == 0
            _update_policy(net, target, (actor, critic), ring.sample(settings.batch_rows), settings, late)
        yield


def _update_policy(
    net: Any, target: Any, optimizers: tuple[Any, Any], batch: list[torch.Tensor], settings: Any, late: bool
) -> None:
    actor, critic = optimizers
    before, action, reward, discount, after = batch
    before = net.seen(before)
    with torch.no_grad():
        seen = net.seen(after)
        following = target.actor(seen)
        if settings.smoothing:
            following += torch.randn_like(following).clamp(-2.5, 2.5) * settings.smoothing
            following = following.clamp(-1, 1)
        wanted = reward / net.unit + discount * target.critic(seen, following).amin(0)
    loss = (net.critic(before, action) - wanted).square().mean(1).sum()
    critic.zero_grad()
    loss.backward()
    critic.step()
    if late:
        loss = -net.critic(before, net.actor(before))[0].mean()
        actor.zero_grad()
        loss.backward()
        actor.step()
        with torch.no_grad():
            for follower, weight in zip(target.parameters(), net.parameters(), strict=True):
                follower.lerp_(weight, settings.tau)
