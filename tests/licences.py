#!/usr/bin/env python3
"""Checks licences and sources of all dependencies against deny.toml, without the network.

cargo-deny does the same and more where it is installed; this needs nothing but cargo and Python.
"""

import json
import re
import subprocess
import sys
import tomllib

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def packages():
    """All packages that Cargo.lock holds for our targets."""
    argv = ["cargo", "metadata", "--format-version", "1", "--locked",
            "--filter-platform", "x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)["packages"]


def allowed(expression, names):
    """True when the SPDX expression can be met with `names`: OR of ANDs, brackets, WITH."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        met = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        token = tokens.pop(0)
        if token == "(":
            met = either()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token.removesuffix("+") in names

    return either()


def self_check():
    """The evaluator itself, on expressions with a known answer."""
    for expression, expected in (("MIT", True), ("GPL-3.0", False), ("GPL-3.0 OR MIT", True),
                                 ("MIT AND GPL-3.0", False), ("MIT/GPL-3.0", True),
                                 ("(GPL-3.0 OR MIT) AND MIT", True), ("MIT WITH x", False)):
        assert allowed(expression, {"MIT"}) is expected, expression


def main():
    self_check()
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)["licenses"]
    common = set(rules["allow"])
    special = {rule["crate"]: set(rule["allow"]) for rule in rules["exceptions"]}
    wrong, seen = [], packages()
    for package in seen:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        names = common | special.get(package["name"], set())
        if not licence or not allowed(licence, names):
            wrong.append(f"{name}: licence `{licence}` is not in deny.toml")
        if package["source"] not in (None, REGISTRY):
            wrong.append(f"{name}: comes from {package['source']}")
    print("\n".join(wrong) or f"{len(seen)} packages: licences and sources as deny.toml allows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
