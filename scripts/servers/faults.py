"""The rules by which the fault proxy and the strict S3 server fail, and the proof that they did.

A rule is a list of conditions and actions, separated by commas, without spaces. The first rule whose
conditions hold is applied. Its count goes up when what it asks for has happened, not before.

    method=PUT        op=PutObject (the S3 server only)       path=REGEX, of path and query
    conn=N            the Nth connection
    nth=K   first=K   after=K   every=K   prob=0.2            counted over what else holds
"""

import random
import re
import threading

CONDITIONS = ("method", "op", "path", "conn", "nth", "first", "after", "every", "prob")
TEXTS = ("method", "op", "path", "status", "strip", "set")


class Rule:
    """One rule; `get` gives the value of an action, None where the rule does not have it."""

    def __init__(self, text, actions):
        self.text, self.seen, self.fired = text, 0, 0
        self.values = {}
        for item in text.split(","):
            name, is_pair, value = item.partition("=")
            if not is_pair or name not in CONDITIONS + actions:
                raise ValueError(f"rule {text!r} has {item!r}; there are the conditions "
                                 f"{', '.join(CONDITIONS)} and the actions {', '.join(actions)}")
            self.values[name] = value if name in TEXTS else float(value)

    def get(self, name, default=None):
        return self.values.get(name, default)

    def __contains__(self, name):
        return name in self.values

    def holds(self, request, chance):
        """Whether it applies to a request, given as a dictionary of the first four conditions."""
        values = self.values
        for name in ("method", "op", "conn"):
            if name in values and values[name] != request.get(name):
                return False
        if "path" in values and not re.search(values["path"], request.get("path") or ""):
            return False
        self.seen += 1
        return not ("nth" in values and self.seen != values["nth"]
                    or "first" in values and self.seen > values["first"]
                    or "after" in values and self.seen <= values["after"]
                    or "every" in values and self.seen % values["every"]
                    or "prob" in values and chance.random() >= values["prob"])


class Rules:
    """The rules in force. Safe to use from several threads."""

    def __init__(self, actions, texts=(), seed=1):
        self.actions, self.lock = actions, threading.Lock()
        self.chance = random.Random(seed)
        self.set(*texts)

    def set(self, *texts):
        rules = [Rule(text, self.actions) for text in texts]
        with self.lock:
            self.rules = rules

    def find(self, among=lambda rule: True, **request):
        """The first rule that holds, of those that `among` lets through."""
        with self.lock:
            return next((rule for rule in self.rules
                         if among(rule) and rule.holds(request, self.chance)), None)

    def count(self, rule):
        with self.lock:
            rule.fired += 1

    def fired(self):
        """One line for each rule: how often it happened, a tab, the rule."""
        with self.lock:
            return [f"{rule.fired}\t{rule.text}" for rule in self.rules]
